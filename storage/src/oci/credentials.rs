//! Logins to registries, from where `docker login` and `podman login` leave them.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde_json::Value;

use super::uri::OciUri;
use crate::Error;

/// What proves who asks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// A name and a password, or a token in the place of a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that the registry's token server exchanges for others.
    Identity(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// The files in which logins are looked for, the first first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoginFiles {
    files: Vec<PathBuf>,
    /// The first one was asked for by name: it must be there.
    named: bool,
    /// How long a credential helper may take.
    patience: Duration,
}

impl LoginFiles {
    /// The files that the environment names: `REGISTRY_AUTH_FILE` alone if it is set; else those
    /// of Docker (`DOCKER_CONFIG`, or `~/.docker`) and of Podman.
    pub(crate) fn of_environment(patience: Duration) -> Self {
        Self::of(|name| std::env::var_os(name), patience)
    }

    /// This file alone.
    pub(crate) fn only(file: &Path, patience: Duration) -> Self {
        Self {
            files: vec![file.to_path_buf()],
            named: true,
            patience,
        }
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>, patience: Duration) -> Self {
        let folder = |name| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(file) = folder("REGISTRY_AUTH_FILE") {
            return Self::only(&file, patience);
        }
        let home = folder("HOME");
        let below_home = |path| home.as_ref().map(|home| home.join(path));
        let docker = folder("DOCKER_CONFIG").or_else(|| below_home(".docker"));
        let config = folder("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let podman = "containers/auth.json";
        let files = [
            docker.map(|folder| folder.join("config.json")),
            folder("XDG_RUNTIME_DIR").map(|folder| folder.join(podman)),
            config.map(|folder| folder.join(podman)),
        ];
        Self {
            files: files.into_iter().flatten().collect(),
            named: false,
            patience,
        }
    }

    /// The login for a repository, `None` where there is none. It may run a credential helper,
    /// and so takes time.
    pub(crate) fn login(&self, uri: &OciUri) -> Result<Option<Login>, Error> {
        for path in &self.files {
            let text = match std::fs::read(path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.named => continue,
                Err(error) => return Err(Error::local("read", path)(error)),
            };
            let file = serde_json::from_slice(&text).unwrap_or_default();
            for key in keys(&file, uri) {
                let helper = helper(&file, &key);
                if let Some(login) = look_up(path, &key, helper, self.patience)? {
                    return Ok(Some(login));
                }
            }
        }
        Ok(None)
    }
}

/// What a registry is called in a file: Podman has logins for part of a registry, of which the
/// narrowest counts.
fn keys(file: &Value, uri: &OciUri) -> Vec<String> {
    let host = match uri.host().as_str() {
        "docker.io" | "registry-1.docker.io" | "index.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    };
    let mut keys = Vec::new();
    let mut narrow = format!("{host}/{}", uri.repository());
    while narrow.len() > host.len() {
        if file["auths"].get(&narrow).is_some() {
            keys.push(narrow.clone());
        }
        narrow.truncate(narrow.rfind('/').unwrap_or_default());
    }
    // Docker's own name for its registry, also towards credential helpers.
    if host == "docker.io" {
        keys.push("https://index.docker.io/v1/".to_owned());
    }
    keys.push(host);
    keys
}

/// The program that may be asked for the login for `key`, if a file names one.
fn helper<'a>(file: &'a Value, key: &str) -> Option<&'a str> {
    let own = file["credHelpers"][key].as_str();
    own.filter(|name| !name.is_empty())
        .or_else(|| file["credsStore"].as_str())
}

fn look_up(
    path: &Path,
    key: &str,
    helper: Option<&str>,
    patience: Duration,
) -> Result<Option<Login>, Error> {
    let bad = |reason: String| Error::Settings { reason };
    let file = File::open(path).map_err(Error::local("read", path))?;
    let shown = path.display();
    // A thread that nobody waits for: a helper may ask somebody who is not there.
    let (send, found) = mpsc::channel();
    let asked = key.to_owned();
    std::thread::spawn(move || {
        let login = docker_credential::get_credential_from_reader(BufReader::new(file), &asked);
        let _ = send.send(login);
    });
    let found = found.recv_timeout(patience).map_err(|_| {
        bad(format!(
            "the credential helper `docker-credential-{}` that {shown} names for {key} did not \
             answer within {} s: unlock it, or take it out of the file and run `docker login {key}`",
            helper.unwrap_or_default(),
            patience.as_secs_f32(),
        ))
    })?;
    match found {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(Login::Password { user, password }))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Login::Identity(token))),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        // A helper's output may hold anything; these are the words for "not logged in".
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if [&stdout, &stderr]
                .iter()
                .any(|text| text.contains("not found")) =>
        {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => Err(bad(format!(
            "the credential helper `{helper}` that {shown} names for {key} failed: run \
             `docker login {key}` again"
        ))),
        Err(
            CredentialRetrievalError::HelperCommunicationError
            | CredentialRetrievalError::MalformedHelperResponse,
        ) => Err(bad(format!(
            "the credential helper that {shown} names for {key} cannot be run, or gives no login: \
             install it, or take it out of the file and run `docker login {key}`"
        ))),
        Err(
            CredentialRetrievalError::CredentialDecodingError
            | CredentialRetrievalError::CredentialMismatchError,
        ) => Err(bad(format!(
            "the login for {key} in {shown} is damaged: run `docker login {key}` again"
        ))),
        Err(
            CredentialRetrievalError::ConfigNotFound | CredentialRetrievalError::ConfigReadError,
        ) => Err(bad(format!(
            "{shown} is not a file of logins: repair or remove it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[&Path]) -> LoginFiles {
        LoginFiles {
            files: files.iter().map(|path| path.to_path_buf()).collect(),
            named: false,
            patience: Duration::from_secs(30),
        }
    }

    fn password(user: &str, password: &str) -> Option<Login> {
        Some(Login::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    #[test]
    fn files_are_those_of_docker_and_podman() {
        let environment = |set: &'static [(&str, &str)]| {
            let variable = move |name: &str| {
                let value = set.iter().find(|(key, _)| *key == name);
                value.map(|(_, value)| OsString::from(value))
            };
            LoginFiles::of(variable, Duration::ZERO).files
        };
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(
            environment(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")]),
            paths(&[
                "/h/.docker/config.json",
                "/r/containers/auth.json",
                "/h/.config/containers/auth.json"
            ])
        );
        assert_eq!(
            environment(&[("DOCKER_CONFIG", "/d"), ("XDG_CONFIG_HOME", "/x")]),
            paths(&["/d/config.json", "/x/containers/auth.json"])
        );
        assert_eq!(
            environment(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/a.json")]),
            paths(&["/a.json"])
        );
    }

    #[test]
    fn the_narrowest_login_of_the_first_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        let docker = folder.path().join("config.json");
        let podman = folder.path().join("auth.json");
        // user:one, user:two, user:three in base64
        std::fs::write(
            &docker,
            r#"{"auths": {"https://host:5000": {"auth": "dXNlcjpvbmU="},
                          "https://index.docker.io/v1/": {"identitytoken": "T"}}}"#,
        )
        .unwrap();
        std::fs::write(
            &podman,
            r#"{"auths": {"other/models": {"auth": "dXNlcjp0d28="},
                          "other": {"auth": "dXNlcjp0aHJlZQ=="},
                          "host:5000": {"auth": "dXNlcjp0d28="}}}"#,
        )
        .unwrap();
        let files = files(&[&folder.path().join("absent"), &docker, &podman]);
        let login = |uri: &str| files.login(&uri.parse().unwrap()).unwrap();
        assert_eq!(login("oci://host:5000/a"), password("user", "one"));
        assert_eq!(login("oci://other/models/x"), password("user", "two"));
        assert_eq!(login("oci://other/modelsx"), password("user", "three"));
        assert_eq!(login("oci://third/a"), None);
        assert_eq!(
            login("oci://docker.io/a"),
            Some(Login::Identity("T".to_owned()))
        );
        assert_eq!(format!("{:?}", login("oci://host:5000/a")), "Some(Login)");
    }

    #[test]
    fn a_helper_that_is_not_there_is_named_and_damage_is_no_login() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.json");
        let files = files(&[&config]);
        for (text, part) in [
            (r#"{"credHelpers": {"host": "none-such"}}"#, "cannot be run"),
            (
                r#"{"auths": {"host": {"auth": "SECRET!"}}}"#,
                "docker login host",
            ),
            (r#"{"auths": "SECRET"}"#, "not a file of logins"),
            ("SECRET", "not a file of logins"),
        ] {
            std::fs::write(&config, text).unwrap();
            let error = files.login(&"oci://host/a".parse().unwrap()).unwrap_err();
            let all = format!("{error} {error:?}");
            assert!(all.contains(part) && !all.contains("SECRET"), "{all}");
        }
        let named = LoginFiles::only(&folder.path().join("absent"), Duration::ZERO);
        assert!(named.login(&"oci://host/a".parse().unwrap()).is_err());
    }
}
