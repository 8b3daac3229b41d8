//! What a configuration may put into the environment of a container.

use crate::contract;

/// Prefix of the names that the contract keeps for itself.
const RESERVED_PREFIX: &str = "MLWM_";

/// Words in the name of a variable that say that it holds a credential.
const SECRET_WORDS: [&str; 6] = [
    "TOKEN",
    "SECRET",
    "SECRETS",
    "CREDENTIAL",
    "CREDENTIALS",
    "PASSPHRASE",
];

/// Parts of a name that say so wherever they stand (`PGPASSWORD`, `AWS_ACCESS_KEY_ID`).
const SECRET_PARTS: [&str; 6] = [
    "PASSWORD",
    "PASSWD",
    "ACCESS_KEY",
    "APIKEY",
    "API_KEY",
    "PRIVATE_KEY",
];

/// Starts of values that only credentials have: access keys of AWS, tokens of GitHub, keys in PEM.
const SECRET_STARTS: [&str; 5] = ["AKIA", "ASIA", "ghp_", "github_pat_", "-----BEGIN "];

/// A variable that a configuration must not set.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvironmentProblem {
    /// Not the name of a variable.
    #[error(
        "`{0}` is not the name of an environment variable: use letters, digits and `_`, and do not start with a digit"
    )]
    Name(String),
    /// A value that no process can have.
    #[error("the value holds a NUL character: take it out")]
    Nul,
    /// A variable of the contract.
    #[error("`{0}` belongs to the container contract and is set by mlwm: take it out")]
    Reserved(String),
    /// A credential.
    #[error(
        "`{0}` looks like a credential, and would be recorded in plans and manifests: take it out; where a container needs it, name it in `credentials`"
    )]
    Credential(String),
}

/// What is wrong with this variable, if anything is.
pub(super) fn problem(name: &str, value: &str) -> Option<EnvironmentProblem> {
    let named = name.to_owned();
    if !is_variable_name(name) {
        Some(EnvironmentProblem::Name(named))
    } else if contract::env::ALL.contains(&name) || name.starts_with(RESERVED_PREFIX) {
        Some(EnvironmentProblem::Reserved(named))
    } else if names_a_secret(name) || is_a_secret(value) {
        Some(EnvironmentProblem::Credential(named))
    } else {
        value.contains('\0').then_some(EnvironmentProblem::Nul)
    }
}

/// What is wrong with the name of a credential, if anything is.
pub(super) fn problem_of_credential(name: &str) -> Option<EnvironmentProblem> {
    match problem(name, "") {
        Some(EnvironmentProblem::Credential(_)) => None,
        other => other,
    }
}

fn is_variable_name(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(inside)
}

fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET_PARTS.iter().any(|part| name.contains(part))
        || name.split('_').any(|word| SECRET_WORDS.contains(&word))
}

/// A credential by its form, or a URL with a password in it.
fn is_a_secret(value: &str) -> bool {
    let password_in_url = value.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority
            .rsplit_once('@')
            .is_some_and(|(user, _)| user.contains(':'))
    });
    password_in_url || SECRET_STARTS.iter().any(|start| value.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_settings_pass() {
        for (name, value) in [
            ("OMP_NUM_THREADS", "4"),
            ("TOKENIZERS_PARALLELISM", "false"),
            ("_X1", ""),
            ("KEYS", "a,b"),
            ("PROXY", "http://proxy:3128/a@b:c"),
        ] {
            assert_eq!(problem(name, value), None, "{name}");
        }
    }

    #[test]
    fn credentials_are_refused_by_name_and_by_form() {
        for (name, value) in [
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_ACCESS_KEY_ID", "x"),
            ("GITHUB_TOKEN", "x"),
            ("hf_token", "x"),
            ("PGPASSWORD", "x"),
            ("DB_PASSWORD_FILE", "x"),
            ("WEATHER_API_KEY", "x"),
            ("DATABASE", "postgres://me:secret@host/db"),
            ("KEY", "-----BEGIN PRIVATE KEY-----"),
            ("ID", "AKIAIOSFODNN7EXAMPLE"),
        ] {
            let expected = EnvironmentProblem::Credential(name.to_owned());
            assert_eq!(problem(name, value), Some(expected));
        }
    }

    #[test]
    fn names_of_the_contract_and_impossible_names_are_refused() {
        for name in contract::env::ALL.into_iter().chain(["MLWM_LATER"]) {
            let expected = EnvironmentProblem::Reserved(name.to_owned());
            assert_eq!(problem(name, ""), Some(expected));
        }
        for name in ["", "1A", "A-B", "A=B", "A B"] {
            assert_eq!(
                problem(name, ""),
                Some(EnvironmentProblem::Name(name.into()))
            );
        }
        assert_eq!(problem("A", "x\0y"), Some(EnvironmentProblem::Nul));
    }
}
