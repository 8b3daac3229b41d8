//! How long mlwm goes on with a server that fails or is away.

use std::time::Duration;

use crate::Period;

/// The environment variable that says it, in ISO 8601 (`PT5M`).
pub const PATIENCE: &str = "MLWM_PATIENCE";

/// Without the variable: a minute.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);

/// What the variable's value means; nothing, or an empty text, is the default. The error says what
/// to write.
pub fn patience(value: Option<&str>) -> Result<Duration, &'static str> {
    match value {
        None | Some("") => Ok(DEFAULT_PATIENCE),
        Some(text) => Period::try_from(text.to_owned())
            .map(Period::duration)
            .map_err(|_| "write a duration as in ISO 8601, such as PT1M"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_minute_unless_said_otherwise() {
        assert_eq!(patience(None), Ok(DEFAULT_PATIENCE));
        assert_eq!(patience(Some("")), Ok(DEFAULT_PATIENCE));
        assert_eq!(patience(Some("PT5M")), Ok(Duration::from_secs(300)));
        for wrong in ["5", "PT0S", "-PT1M", "a while"] {
            assert!(patience(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
