//! The doors that open without a token: signing in, staying signed in, signing out, and making the first
//! user. They are apart from GraphQL, so that a stranger's query is never read: each takes one small JSON
//! object, and gives one, or an error in GraphQL's shape.

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::post,
};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    audited,
    auth::Token,
    caller::{address, asked_from},
    doors::Doors,
    error::ApiError,
    http::is_json,
    slow,
};
use crate::{
    accounts::{AccountError, Origin, SignInError, Signed},
    store::{self, AskedFrom},
};

/// Longer ones hold no name, address and password.
const MAX_BODY: usize = 8 * 1024;

pub(super) fn routes() -> Router<Doors> {
    Router::new()
        .route("/auth/login", post(login))
        .route("/auth/refresh", post(refresh))
        .route("/auth/logout", post(logout))
        .route("/auth/setup", post(set_up))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    email: String,
    password: SecretString,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Refresh {
    refresh_token: SecretString,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetUp {
    token: SecretString,
    name: String,
    email: String,
    password: SecretString,
}

/// What a session is held with.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    user_id: Uuid,
    token_type: &'static str,
    access_token: String,
    access_expires_at: DateTime<Utc>,
    refresh_token: String,
    refresh_expires_at: DateTime<Utc>,
}

impl From<Signed> for Session {
    fn from(signed: Signed) -> Self {
        Self {
            user_id: signed.user.uuid(),
            token_type: "Bearer",
            access_token: signed.access.expose_secret().to_owned(),
            access_expires_at: signed.access_expires_at,
            refresh_token: signed.refresh.expose_secret().to_owned(),
            refresh_expires_at: signed.refresh_expires_at,
        }
    }
}

async fn login(State(doors): State<Doors>, request: Request) -> Response {
    let origin = origin(&request);
    let from = asked_from(request.extensions());
    answered(&doors, "/auth/login", from, async {
        let Login { email, password } = read(request).await?;
        Ok(doors.api.accounts.sign_in(&email, password, &origin).await?)
    })
    .await
}

async fn refresh(State(doors): State<Doors>, request: Request) -> Response {
    let from = asked_from(request.extensions());
    answered(&doors, "/auth/refresh", from, async {
        let Refresh { refresh_token } = read(request).await?;
        Ok(doors.api.accounts.refresh(refresh_token.expose_secret()).await?)
    })
    .await
}

/// Ends the session of the access token in the header, or of the refresh token in the body; of a program's
/// token in the header, the token.
async fn logout(State(doors): State<Doors>, request: Request) -> Response {
    let from = asked_from(request.extensions());
    let ended = async {
        let held = match Token::of(request.headers()) {
            Some(token) => token.as_str().to_owned(),
            None => read::<Refresh>(request).await?.refresh_token.expose_secret().to_owned(),
        };
        doors.api.accounts.sign_out(&held).await.map_err(|error| ApiError::from(SignInError::from(error)))
    };
    match store::asked_from(from, ended).await {
        Ok(()) => (NO_STORE, Json(serde_json::json!({}))).into_response(),
        Err(error) => error.into_http(),
    }
}

async fn set_up(State(doors): State<Doors>, request: Request) -> Response {
    let origin = origin(&request);
    let from = asked_from(request.extensions());
    answered(&doors, "/auth/setup", from, async {
        let SetUp { token, name, email, password } = read(request).await?;
        Ok(doors.api.accounts.set_up(token.expose_secret(), &name, &email, password, &origin).await?)
    })
    .await
}

/// No cache may keep what this gives.
const NO_STORE: [(header::HeaderName, HeaderValue); 1] =
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];

async fn answered(
    doors: &Doors,
    door: &'static str,
    from: AskedFrom,
    signed: impl Future<Output = Result<Signed, ApiError>>,
) -> Response {
    match store::asked_from(from.clone(), signed).await {
        Ok(signed) => (NO_STORE, Json(Session::from(signed))).into_response(),
        Err(error) => {
            // A wrong password is worth a row; there are only so many before one has to wait.
            let at = audited::At { door, user: None, vm: None, origin: from };
            audited::refused_at(&doors.ledger, at, &error).await;
            error.into_http()
        }
    }
}

async fn read<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let (parts, body): (_, Body) = request.into_parts();
    // Also what keeps foreign pages out: a browser sends this type only where it is allowed to.
    if !is_json(&parts.headers) {
        return Err(ApiError::new("INVALID_INPUT", "send a JSON object as application/json"));
    }
    let bytes = axum::body::to_bytes(body, MAX_BODY).await.map_err(|error| slow::unread(&error, MAX_BODY))?;
    // What serde says may repeat what was sent, a password among it.
    serde_json::from_slice(&bytes).map_err(|_| {
        ApiError::new("INVALID_INPUT", "the body is no JSON object with the fields that are wanted")
    })
}

/// Attempts count for the address that counts; nobody's address is one as well.
fn origin(request: &Request) -> Origin {
    let agent =
        request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let address = address(request.extensions()).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Origin { address, user_agent: agent.to_owned() }
}

impl From<SignInError> for ApiError {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Refused | SignInError::NotSetUpToken => Self::new("FORBIDDEN", error.to_string()),
            SignInError::Ended => Self::new("UNAUTHENTICATED", error.to_string()),
            SignInError::TooMany(wait) => Self::new("TOO_MANY_ATTEMPTS", error.to_string()).retry_after(wait),
            SignInError::Account(error) => error.into(),
        }
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::InvalidName => Self::invalid("name", error.to_string()),
            AccountError::InvalidEmail => Self::invalid("email", error.to_string()),
            AccountError::InvalidPassword(_) => Self::invalid("password", error.to_string()),
            AccountError::InvalidLabel => Self::invalid("label", error.to_string()),
            AccountError::UnknownUser(_) => Self::new("USER_NOT_FOUND", error.to_string()),
            AccountError::UnknownToken(_) => Self::new("TOKEN_NOT_FOUND", error.to_string()),
            AccountError::NoScopes => Self::invalid("scopes", error.to_string()),
            AccountError::WrongPassword => Self::new("FORBIDDEN", error.to_string()),
            AccountError::Store(crate::store::StoreError::LastAdmin) => {
                Self::new("LAST_ADMIN", "nobody would be left who may administer this host")
            }
            AccountError::Store(crate::store::StoreError::OwnsVms) => {
                Self::new("USER_OWNS_VMS", "the user owns VMs; delete those first")
            }
            AccountError::Store(crate::store::StoreError::TooMany) => {
                Self::new("LIMIT_REACHED", "you have as many tokens as there may be; revoke some first")
            }
            AccountError::NoSuchUser(_) => Self::new("USER_NOT_FOUND", error.to_string()),
            AccountError::Store(crate::store::StoreError::UserExists) => {
                Self::new("USER_EXISTS", "there is such a user, or one with that e-mail address")
            }
            AccountError::Store(error) => error.into(),
            AccountError::Randomness(_) | AccountError::Hashing(_) => Self::internal(&error),
        }
    }
}
