//! `login`, `logout`, `whoami`.

use std::time::Duration;

use serde_json::{Value, json};

use super::show::word;
use crate::{
    args::Login,
    clean,
    client::Client,
    context::Context,
    documents,
    failure::Failure,
    profile::{self, Profile},
    prompt,
};

/// How long signing in may take: a password costs on purpose.
const SIGN_IN: Duration = Duration::from_secs(60);

/// Has a token, sees that it is good, and keeps it.
pub(super) async fn login(context: &Context, args: Login) -> Result<(), Failure> {
    let path = profile::path()?;
    // Read first: nobody types a password for a file that cannot be used.
    let mut profiles = profile::read(&path)?;
    let name = context.profile.clone().unwrap_or_else(|| profile::DEFAULT.into());
    let url = context.url.clone().or_else(|| profiles.profiles.get(&name).map(|it| it.url.clone()));
    let url = url.unwrap_or_else(|| profile::DEFAULT_URL.into());
    let base = profile::base(&url)?;
    if profile::is_open(&base) {
        context.screen.note(&format!("warning: what is sent to {base} can be read on the way; use https"));
    }
    let token = match args.email {
        Some(email) => issued(&base, &email, args.days, args.read_only).await?,
        None => match std::env::var("INFINIBAY_TOKEN").ok().filter(|token| !token.is_empty()) {
            Some(token) => token,
            None => prompt::secret("Token").await?,
        },
    };
    let me = Client::new(base, token.clone())?.ask(&documents::ME, json!({})).await?;
    profiles.profiles.insert(name.clone(), Profile { url: url.clone(), token });
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

/// A token of one's own, issued upon a password; the session ends at once.
async fn issued(base: &reqwest::Url, email: &str, days: i32, read_only: bool) -> Result<String, Failure> {
    let password = prompt::secret("Password").await?;
    let door = Client::new(base.clone(), String::new())?;
    let body = json!({ "email": email, "password": password });
    let session = door.post("auth/login", None, &body, SIGN_IN).await?;
    let Some(access) = session["accessToken"].as_str() else {
        return Err(Failure::Answer("the daemon answers without a session".into()));
    };
    let client = Client::new(base.clone(), access.to_owned())?;
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

/// Forgets a profile. Its token stays good until it ends or is revoked.
pub(super) fn logout(context: &Context) -> Result<(), Failure> {
    let path = profile::path()?;
    let mut profiles = profile::read(&path)?;
    let name = context.profile.as_deref().unwrap_or(profile::DEFAULT);
    if profiles.profiles.remove(name).is_none() {
        return Err(Failure::Profile(format!("there is no profile '{name}'")));
    }
    profile::write(&path, &profiles)?;
    if context.screen.json {
        return context.screen.value(&json!({ "profile": name }));
    }
    context.screen.line(&format!("forgot the profile {}", clean::line(name)))
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
