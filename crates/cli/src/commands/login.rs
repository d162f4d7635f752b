//! `login`, `logout`, `whoami`.

use std::time::Duration;

use serde_json::{Value, json};

use super::show::word;
use crate::{
    args::{Login, Logout},
    clean,
    client::Client,
    context::Context,
    documents,
    failure::Failure,
    profile::{self, Profile},
    prompt,
    tls::Authority,
};

/// How long signing in may take: a password costs on purpose.
const SIGN_IN: Duration = Duration::from_secs(60);

/// Has a token, sees that it is good, and keeps it.
pub(super) async fn login(context: &Context, args: Login) -> Result<(), Failure> {
    let path = profile::path()?;
    // Read first: nobody types a password for a file that cannot be used.
    let name = context.profile.clone().unwrap_or_else(|| profile::DEFAULT.into());
    let before = profile::read(&path)?.profiles.remove(&name);
    let url = context.url.clone().or_else(|| before.as_ref().map(|it| it.url.clone()));
    let url = url.unwrap_or_else(|| profile::DEFAULT_URL.into());
    let base = profile::base(&url)?;
    if profile::is_open(&base) {
        context.screen.note(&format!("warning: what is sent to {base} can be read on the way; use https"));
    }
    let ca = authority(context, &base, before)?;
    let token = match args.email {
        Some(email) => issued(&base, ca.as_ref(), &email, args.days, args.read_only).await?,
        None => match std::env::var("INFINIBAY_TOKEN").ok().filter(|token| !token.is_empty()) {
            Some(token) => token,
            None => prompt::secret("Token").await?,
        },
    };
    let me = Client::new(base, token.clone(), ca.as_ref())?.ask(&documents::ME, json!({})).await?;
    // Read again: typing takes long, and others may have signed in meanwhile.
    let mut profiles = profile::read(&path)?;
    profiles.profiles.insert(name.clone(), Profile { url: url.clone(), token, ca });
    profile::write(&path, &profiles)?;
    if context.screen.json {
        return context.screen.value(&json!({ "profile": name, "url": url, "user": me }));
    }
    let user = clean::line(&word(&me["name"]));
    context.screen.line(&format!(
        "signed in at {} as {user} (profile {})",
        clean::line(&url),
        clean::line(&name)
    ))
}

/// Who vouches for the daemon from now on: whom the person names, else who did before.
fn authority(
    context: &Context,
    base: &reqwest::Url,
    before: Option<Profile>,
) -> Result<Option<Authority>, Failure> {
    let named = context.authority()?;
    if base.scheme() != "https" {
        if named.is_some() {
            context
                .screen
                .note(&format!("an authority vouches for https; {base} is none, and it is not kept"));
        }
        return Ok(None);
    }
    Ok(match (named, before) {
        (None, Some(before)) if profile::base(&before.url)? == *base => before.ca,
        (named, _) => named,
    })
}

/// A token of one's own, issued upon a password; the session ends at once.
async fn issued(
    base: &reqwest::Url,
    ca: Option<&Authority>,
    email: &str,
    days: i32,
    read_only: bool,
) -> Result<String, Failure> {
    let password = prompt::secret("Password").await?;
    let door = Client::new(base.clone(), String::new(), ca)?;
    let body = json!({ "email": email, "password": password });
    let session = door.post("auth/login", None, &body, SIGN_IN).await?;
    let Some(access) = session["accessToken"].as_str() else {
        return Err(Failure::Answer("the daemon answers without a session".into()));
    };
    let client = Client::new(base.clone(), access.to_owned(), ca)?;
    let scopes: &[&str] =
        if read_only { &["READ"] } else { &["READ", "CONTROL", "UNSAFE_COMMANDS", "TELEMETRY", "ADMIN"] };
    let label = format!("infinibay on {}", rustix::system::uname().nodename().to_string_lossy());
    let issued =
        client.ask(&documents::CREATE_API_TOKEN, json!({ "label": label, "scopes": scopes, "days": days }));
    let issued = issued.await;
    // A session that is not ended so ends by itself.
    let _ = client.post("auth/logout", Some(access), &json!({}), SIGN_IN).await;
    match issued?["token"].take() {
        Value::String(token) => Ok(token),
        _ => Err(Failure::Answer("the daemon answers without a token".into())),
    }
}

/// Ends a profile's token, then forgets the profile: while the one has not gone well the other is not
/// done, so that no good token is lost sight of.
pub(super) async fn logout(context: &Context, args: Logout) -> Result<(), Failure> {
    let path = profile::path()?;
    let profiles = profile::read(&path)?.profiles;
    let name = context.profile.as_deref().unwrap_or(profile::DEFAULT);
    let missing = || Failure::Profile(format!("there is no profile '{name}'"));
    let profile = profiles.get(name).ok_or_else(missing)?;
    if let Some(url) = &context.url
        && profile::base(url)? != profile::base(&profile.url)?
    {
        return Err(Failure::Profile(format!(
            "the profile '{name}' is for {}, and not for {url}",
            profile.url
        )));
    }
    let also = profiles.iter().find(|(other, it)| *other != name && it.token == profile.token);
    let revoked = if args.keep_token {
        false
    } else if let Some((other, _)) = also {
        context.screen.note(&format!("the token stays good: the profile {other} has it too"));
        false
    } else {
        match revoke(context, profile).await {
            Ok(()) => true,
            Err(failure) if args.force => {
                context.screen.note(&format!("warning: the token stays good until it ends: {failure}"));
                false
            }
            Err(failure) => {
                let more = "its token was not ended, so the profile is kept; --force forgets it all the same";
                context.screen.note(more);
                return Err(failure);
            }
        }
    };
    // Read again: others may have signed in meanwhile.
    let mut profiles = profile::read(&path)?;
    profiles.profiles.remove(name);
    profile::write(&path, &profiles)?;
    if std::env::var_os("INFINIBAY_TOKEN").is_some_and(|token| !token.is_empty()) {
        context.screen.note("INFINIBAY_TOKEN is set, and goes on being used");
    }
    if context.screen.json {
        return context.screen.value(&json!({ "profile": name, "tokenRevoked": revoked }));
    }
    let ended = if revoked { "ended the token and " } else { "" };
    context.screen.line(&format!("{ended}forgot the profile {}", clean::line(name)))
}

/// Ends a profile's token, and sees that it has ended.
async fn revoke(context: &Context, profile: &Profile) -> Result<(), Failure> {
    let named = context.authority()?;
    let ca = named.as_ref().or(profile.ca.as_ref());
    let client = Client::new(profile::base(&profile.url)?, profile.token.clone(), ca)?;
    client.post("auth/logout", Some(&client.token), &json!({}), SIGN_IN).await?;
    match client.ask(&documents::ME, json!({})).await {
        Err(Failure::Api { code, .. }) if code == "UNAUTHENTICATED" => Ok(()),
        Err(failure) => Err(failure),
        Ok(_) => Err(Failure::Answer(format!("{} still takes the token", client.base))),
    }
}

/// Who the token is for.
pub(super) async fn whoami(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let me = client.ask(&documents::ME, json!({})).await?;
    if context.screen.json {
        return context.screen.value(&json!({ "url": client.base.as_str(), "user": me }));
    }
    let (name, role) = (word(&me["name"]), word(&me["role"]).to_lowercase());
    context.screen.line(&format!("{} ({}) at {}", clean::line(&name), clean::line(&role), client.base))
}
