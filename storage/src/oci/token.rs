//! What a registry wants to see before it does something: a password, or a token that its token
//! server gives for one.
//!
//! The exchange is Docker's ([token authentication][spec]): the registry answers 401 and names the
//! token server (the realm), which is asked for a token with certain rights, as who is logged in or
//! as nobody in particular.
//!
//! [spec]: https://distribution.github.io/distribution/spec/auth/token/

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use http_auth::ChallengeParser;
use reqwest::header::{CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::connection::Connection;
use super::credentials::{Login, LoginFiles};
use super::uri::OciUri;
use crate::pool;
use crate::transfer::http::{passes, retry_after};
use crate::transfer::retry::{Cause, Failure};
use crate::transfer::stall::StallWatch;

/// What is to be done with a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading.
    Pull,
    /// Writing.
    Push,
    /// Writing, and reading the blobs of another repository.
    Mount {
        /// Name of the other repository.
        from: String,
    },
    /// Deleting.
    Delete,
    /// Listing the repositories of the registry.
    Catalog,
}

impl Access {
    /// The scopes that a token server knows it by.
    fn scopes(&self, repository: &str) -> Vec<String> {
        let scope = |name: &str, actions: &str| format!("repository:{name}:{actions}");
        match self {
            Self::Pull => vec![scope(repository, "pull")],
            Self::Push => vec![scope(repository, "pull,push")],
            Self::Mount { from } => vec![scope(repository, "pull,push"), scope(from, "pull")],
            Self::Delete => vec![scope(repository, "pull,delete")],
            Self::Catalog => vec!["registry:catalog:*".to_owned()],
        }
    }
}

/// How the registry wants to be convinced.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

impl Challenge {
    /// The strongest that is understood among those in a 401.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter();
        let mut basic = None;
        for text in texts.filter_map(|value| value.to_str().ok()) {
            for challenge in ChallengeParser::new(text).map_while(Result::ok) {
                let parameter = |name: &str| {
                    let mut all = challenge.params.iter();
                    all.find(|(key, _)| key.eq_ignore_ascii_case(name))
                        .map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                } else if challenge.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = parameter("realm")
                {
                    let service = parameter("service");
                    return Some(Self::Bearer { realm, service });
                }
            }
        }
        basic
    }
}

/// What is put into a request.
#[derive(Clone)]
enum Proof {
    Password { user: String, password: String },
    Token(String),
}

impl Proof {
    fn in_request(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Password { user, password } => request.basic_auth(user, Some(password)),
            Self::Token(token) => request.bearer_auth(token),
        }
    }
}

/// A proof, and until when it is good.
struct Granted {
    proof: Proof,
    until: Option<Instant>,
}

/// The proofs that are at hand for one registry.
pub(crate) struct Tokens {
    logins: LoginFiles,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    challenge: Option<Challenge>,
    granted: HashMap<Vec<String>, Granted>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

/// What a token server answers.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// A token that does not say how long it is good is so for a minute.
const UNSAID: u64 = 60;

/// A token server's answer is small.
const LIMIT: usize = 1 << 20;

impl Tokens {
    pub(crate) fn new(logins: LoginFiles) -> Self {
        Self {
            logins,
            held: Mutex::default(),
        }
    }

    /// The registry answered 401: what it wants is noted, and what it was shown is dropped.
    pub(crate) async fn refused(&self, headers: &HeaderMap, access: &Access, uri: &OciUri) {
        let mut held = self.held.lock().await;
        if let Some(challenge) = Challenge::of(headers) {
            held.challenge = Some(challenge);
        }
        held.granted.remove(&access.scopes(uri.repository()));
    }

    /// The request with the proof that the registry wants, which is got where it is not at hand.
    pub(crate) async fn prove(
        &self,
        request: RequestBuilder,
        access: &Access,
        connection: &Connection,
    ) -> Result<RequestBuilder, Failure> {
        let mut held = self.held.lock().await;
        let Some(challenge) = held.challenge.clone() else {
            return Ok(request);
        };
        let scopes = access.scopes(connection.uri().repository());
        if let Some(granted) = held.granted.get(&scopes)
            && granted.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(granted.proof.in_request(request));
        }
        // Looked up each time: what a credential helper gives may be good for hours only.
        let (logins, uri) = (self.logins.clone(), connection.uri().clone());
        let place = uri.to_string();
        let login = pool::blocking(&place, move || logins.login(&uri)).await?;
        let granted = match challenge {
            Challenge::Basic => with_password(login, connection)?,
            Challenge::Bearer { realm, service } => {
                fetch(&realm, service.as_deref(), &scopes, login, connection).await?
            }
        };
        let request = granted.proof.in_request(request);
        held.granted.insert(scopes, granted);
        Ok(request)
    }
}

fn with_password(login: Option<Login>, connection: &Connection) -> Result<Granted, Failure> {
    match login {
        Some(Login::Password { user, password }) => Ok(Granted {
            proof: Proof::Password { user, password },
            until: None,
        }),
        Some(Login::Identity(_)) => Err(Failure::permanent(
            connection.denied("it wants a password, but there is a token"),
        )),
        None => Err(Failure::permanent(
            connection.denied("it wants a login, and there is none"),
        )),
    }
}

/// Asks the token server once.
async fn fetch(
    realm: &str,
    service: Option<&str>,
    scopes: &[String],
    login: Option<Login>,
    connection: &Connection,
) -> Result<Granted, Failure> {
    let asked = Instant::now();
    let realm = trusted(realm, connection)?;
    let request = request(realm, service, scopes, login.as_ref(), connection);
    let watch = StallWatch::new(connection.stall());
    let peer = connection.peer();
    let response = match watch.guard(request.send()).await {
        Ok(sent) => sent.map_err(|error| peer.unanswered(error))?,
        Err(_) => return Err(peer.stalled()),
    };
    let status = response.status().as_u16();
    let odd = |what: &str| {
        let reason = format!("its token server {what}");
        Failure::permanent(peer.service(reason))
    };
    match status {
        200 => {}
        400 | 401 | 403 => {
            let reason = match login {
                Some(_) => format!("HTTP {status} of its token server"),
                None => format!("HTTP {status} of its token server, and there is no login"),
            };
            return Err(Failure::permanent(connection.denied(&reason)));
        }
        _ if passes(status) => {
            let after = retry_after(response.headers());
            let mut failure = odd(&format!("answers HTTP {status}"));
            failure.cause = Cause::Transient { after };
            return Err(failure);
        }
        _ => return Err(odd(&format!("answers HTTP {status}"))),
    }
    let text = connection.whole(response, LIMIT, &watch).await?;
    let answer: Answer = serde_json::from_slice(&text).map_err(|_| odd("gives no token"))?;
    let token = answer.token.or(answer.access_token);
    let token = token.filter(|token| !token.is_empty() && !token.contains(char::is_control));
    let token = token.ok_or_else(|| odd("gives no token"))?;
    let good_for = Duration::from_secs(answer.expires_in.unwrap_or(UNSAID));
    // A little less, for the way to the registry.
    let good_for = good_for.saturating_sub((good_for / 10).min(Duration::from_secs(10)));
    Ok(Granted {
        proof: Proof::Token(token),
        // One that is good for ever is so until the registry says otherwise.
        until: asked.checked_add(good_for),
    })
}

/// The realm, if a password may be told to it: encrypted, unless the registry is not either.
fn trusted(realm: &str, connection: &Connection) -> Result<Url, Failure> {
    let url = Url::parse(realm).ok();
    let encrypted = |url: &Url| url.scheme() == "https";
    let fits =
        |url: &Url| encrypted(url) || url.scheme() == "http" && !encrypted(connection.root());
    url.filter(fits).ok_or_else(|| {
        let reason = "it names a token server that cannot be trusted with a password";
        Failure::permanent(connection.denied(reason))
    })
}

fn request(
    mut realm: Url,
    service: Option<&str>,
    scopes: &[String],
    login: Option<&Login>,
    connection: &Connection,
) -> RequestBuilder {
    let service = service.map(|service| ("service", service));
    if let Some(Login::Identity(token)) = login {
        let scopes = scopes.join(" ");
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "mlwm")
            .append_pair("refresh_token", token)
            .append_pair("scope", &scopes)
            .extend_pairs(service)
            .finish();
        return connection
            .client()
            .post(realm)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
    }
    realm
        .query_pairs_mut()
        .extend_pairs(service)
        .extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
    let request = connection.client().get(realm);
    match login {
        Some(Login::Password { user, password }) => request.basic_auth(user, Some(password)),
        _ => request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, text.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn challenges_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(ToOwned::to_owned),
            })
        };
        assert_eq!(
            challenge(&[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error="invalid_token""#
            ]),
            bearer("https://auth.docker.io/token", Some("registry.docker.io"))
        );
        assert_eq!(
            challenge(&["Basic realm=\"x\"", "bearer Realm=\"https://t\""]),
            bearer("https://t", None)
        );
        assert_eq!(
            challenge(&[r#"Basic realm="Registry Realm""#]),
            Some(Challenge::Basic)
        );
        assert_eq!(challenge(&["Negotiate"]), None);
        assert_eq!(challenge(&["Bearer error=\"x\""]), None);
        assert_eq!(challenge(&[]), None);
    }

    #[test]
    fn rights_are_no_more_than_is_needed() {
        assert_eq!(Access::Pull.scopes("a/b"), ["repository:a/b:pull"]);
        let mount = Access::Mount {
            from: "c".to_owned(),
        };
        assert_eq!(
            mount.scopes("a/b"),
            ["repository:a/b:pull,push", "repository:c:pull"]
        );
    }
}
