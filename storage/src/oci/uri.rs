//! The name of a repository in an OCI registry.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::Host;

use crate::Error;

/// The longest name of a repository together with its host, as Docker has it.
const LONGEST: usize = 255;

/// The name of a repository in an OCI registry, `oci://host[:port]/path`, or of all repositories
/// below a path. Only this form is understood: no default host, no tag, no digest, no credentials.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OciUri {
    host: String,
    port: Option<u16>,
    repository: String,
}

impl OciUri {
    /// `host` or `host:port`.
    pub fn host(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// The name of the repository, such as `models/gefion-1`; empty for the whole registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The repository `relative` below this path. Its parts have only lower-case letters, digits
    /// and single separators `.`, `_`, `__` or `-` between them.
    pub fn join(&self, relative: &str) -> Result<Self, Error> {
        let text = match self.repository.as_str() {
            "" => relative.to_owned(),
            above => format!("{above}/{relative}"),
        };
        self.with_repository(&text)
    }

    /// Another repository in the same registry.
    pub fn with_repository(&self, repository: &str) -> Result<Self, Error> {
        let uri = Self {
            repository: repository.to_owned(),
            ..self.clone()
        };
        match check_repository(repository) {
            Ok(()) if uri.to_string().len() <= LONGEST => Ok(uri),
            Ok(()) => Err(invalid(
                &uri.to_string(),
                "it is longer than 255 characters",
            )),
            Err(reason) => Err(invalid(&uri.to_string(), reason)),
        }
    }

    /// Whether the host is this computer.
    pub(crate) fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost"
            || bare.ends_with(".localhost")
            || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// The host that answers for the registry: Docker Hub's is not the one in its names.
    pub(crate) fn api_host(&self) -> String {
        match self.host.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io".to_owned(),
            _ => self.host(),
        }
    }
}

impl FromStr for OciUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some(rest) = text.strip_prefix("oci://") else {
            return Err(invalid(text, "write oci://host[:port]/path"));
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if text.contains(['?', '#']) || authority.contains('@') {
            let reason = "credentials and queries do not belong in a URI: use `docker login`";
            return Err(invalid(text, reason));
        }
        let (host, port) = authority_parts(authority).map_err(|reason| invalid(text, reason))?;
        let whole = Self {
            host,
            port,
            repository: String::new(),
        };
        match path.trim_end_matches('/') {
            "" => Ok(whole),
            path => whole.with_repository(path),
        }
    }
}

fn authority_parts(authority: &str) -> Result<(String, Option<u16>), &'static str> {
    const HOST: &str = "the host is missing or has characters that a host cannot have";
    // A colon inside the brackets of an IPv6 address does not begin a port.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = port
        .map(|port| port.parse::<u16>().ok().filter(|port| *port != 0))
        .map(|port| port.ok_or("the port is not a number from 1 to 65535"))
        .transpose()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | ':');
    if host.is_empty() || !host.chars().all(plain) {
        return Err(HOST);
    }
    let host = Host::parse(&host.to_ascii_lowercase()).map_err(|_| HOST)?;
    Ok((host.to_string(), port))
}

/// Whether `name` is a repository's name by the grammar of the OCI distribution specification.
fn check_repository(name: &str) -> Result<(), &'static str> {
    for part in name.split('/') {
        if part.is_empty() {
            return Err("the path has an empty part");
        }
        if part.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err("a registry's names are lower case");
        }
        if part.contains([':', '@']) {
            return Err("a tag or digest does not belong into the path of a repository");
        }
        if !is_component(part) {
            return Err(
                "the parts of its path may have only lower-case letters and digits, with single \
                 `.`, `_`, `__` or `-` between them",
            );
        }
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = part.split(word).filter(|between| !between.is_empty());
    let single =
        |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    part.starts_with(word) && part.ends_with(word) && separators.into_iter().all(single)
}

/// The error for `text`, which may hold credentials: they and a query are cut out of it.
fn invalid(text: &str, reason: &str) -> Error {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let shown = mlwm_spec::without_credentials(text);
    Error::InvalidUri {
        uri: shown.escape_debug().to_string(),
        reason: reason.to_owned(),
    }
}

impl fmt::Display for OciUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}", self.host())?;
        if !self.repository.is_empty() {
            write!(f, "/{}", self.repository)?;
        }
        Ok(())
    }
}

impl fmt::Debug for OciUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_of_registries() {
        for (text, host, repository, loopback) in [
            (
                "oci://127.0.0.1:5000/models/gefion-1",
                "127.0.0.1:5000",
                "models/gefion-1",
                true,
            ),
            ("oci://LocalHost/a", "localhost", "a", true),
            ("oci://[::1]:5000/a.b", "[::1]:5000", "a.b", true),
            ("oci://[::1]/a", "[::1]", "a", true),
            ("oci://ghcr.io/x__y/z--w", "ghcr.io", "x__y/z--w", false),
            ("oci://registry:5000", "registry:5000", "", false),
            ("oci://host/a/", "host", "a", false),
        ] {
            let uri: OciUri = text.parse().unwrap();
            assert_eq!(uri.host(), host);
            assert_eq!(uri.repository(), repository);
            assert_eq!(uri.is_loopback(), loopback, "{text}");
            assert_eq!(uri.to_string().parse::<OciUri>().unwrap(), uri);
        }
        let hub: OciUri = "oci://docker.io/library/busybox".parse().unwrap();
        assert_eq!(hub.api_host(), "registry-1.docker.io");
        let root: OciUri = "oci://host:1".parse().unwrap();
        assert_eq!(root.join("a/b").unwrap().to_string(), "oci://host:1/a/b");
        let below = root.join("a").unwrap().join("b").unwrap();
        assert_eq!(below.to_string(), "oci://host:1/a/b");
    }

    #[test]
    fn what_is_no_repository_is_refused_with_the_reason() {
        let long = format!("oci://host/{}", "a".repeat(250));
        for (text, part) in [
            ("host/a", "oci://host"),
            ("oci:///a", "host is missing"),
            ("oci://ho st/a", "host"),
            ("oci://host:0/a", "port"),
            ("oci://host:x/a", "port"),
            ("oci://host/A", "lower case"),
            ("oci://host/a//b", "empty part"),
            ("oci://host/../b", "only lower-case"),
            ("oci://host/a..b", "only lower-case"),
            ("oci://host/-a", "only lower-case"),
            ("oci://host/a___b", "only lower-case"),
            ("oci://host/a:v1", "tag"),
            ("oci://host/a%2f", "only lower-case"),
            (long.as_str(), "255"),
        ] {
            let error = text.parse::<OciUri>().unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn credentials_in_a_uri_are_refused_and_not_repeated() {
        for text in [
            "oci://USER:SECRET@host/a",
            "oci://SECRET@host",
            "oci://USER:SEC/SECRET@host/a",
            "oci://host/a?token=SECRET",
            "https://USER:SECRET@host/a",
        ] {
            let error = text.parse::<OciUri>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
        }
    }
}
