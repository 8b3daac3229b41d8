//! Whether the credentials last as long as a run, before it begins.

use jiff::Timestamp;
use mlwm_spec::Period;
use mlwm_storage::{Scheme, Uri, s3_credentials_end};

use crate::Error;
use crate::plan::{Plan, PlannedTask};

/// When the credentials end with which a plan reads and writes in S3, as far as that is known; `None` also if it does
/// neither.
///
/// # Errors
/// If what the environment says of it is no time.
pub async fn credentials_end(plan: &Plan) -> Result<Option<Timestamp>, Error> {
    match place_in_s3(plan) {
        Some(_) => Ok(s3_credentials_end().await?),
        None => Ok(None),
    }
}

/// The same for a plan that is to be run now: refuses credentials that have ended, or do not last as long as is asked
/// for.
pub(crate) async fn check(plan: &Plan, needed: Option<Period>) -> Result<Option<Timestamp>, Error> {
    let Some(uri) = place_in_s3(plan) else {
        return Ok(None);
    };
    let end = s3_credentials_end().await?;
    if let Some(end) = end {
        refuse(end, Timestamp::now(), needed, uri)?;
    }
    Ok(end)
}

fn refuse(end: Timestamp, now: Timestamp, needed: Option<Period>, uri: &str) -> Result<(), Error> {
    let left = end.duration_since(now);
    if left.is_negative() || left.is_zero() {
        return Err(Error::CredentialsEnded {
            uri: uri.to_owned(),
            end: text(end),
        });
    }
    match needed.filter(|needed| left.as_secs() < needed.seconds()) {
        Some(needed) => Err(Error::CredentialsShort {
            uri: uri.to_owned(),
            end: text(end),
            needed,
        }),
        None => Ok(()),
    }
}

/// When a run is expected to end that takes so many seconds from now on, if the credentials end before that.
pub(crate) fn outlived(end: Timestamp, now: Timestamp, seconds: f64) -> Option<Timestamp> {
    let whole = jiff::SignedDuration::from_secs(seconds.ceil() as i64);
    let run_end = now.checked_add(whole).unwrap_or(Timestamp::MAX);
    (end < run_end).then_some(run_end)
}

/// A time as reports have it.
pub(crate) fn text(time: Timestamp) -> String {
    time.strftime("%FT%TZ").to_string()
}

/// Whether a task reads or writes in S3.
pub(crate) fn is_in_s3(task: &PlannedTask) -> bool {
    places(task).any(is_s3)
}

/// A place in S3 that is read or written: the first.
fn place_in_s3(plan: &Plan) -> Option<&str> {
    let ensembles = plan.ensembles.iter().map(|ensemble| ensemble.uri.as_str());
    let mut all = plan.tasks.iter().flat_map(places).chain(ensembles);
    all.find(|uri| is_s3(uri))
}

fn places(task: &PlannedTask) -> impl Iterator<Item = &str> {
    let inputs = task.inputs.iter().map(|input| input.uri.as_str());
    inputs.chain(task.outputs.iter().map(|output| output.uri.as_str()))
}

fn is_s3(uri: &str) -> bool {
    uri.parse().is_ok_and(|uri: Uri| uri.scheme() == Scheme::S3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlwm_spec::ExitCode;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn credentials_must_last_until_they_are_used_and_as_long_as_is_asked() {
        let hour: Period = "PT1H".parse().unwrap();
        let refused = |left, needed| refuse(time(left), time(0), needed, "s3://bucket/in");
        for (left, needed) in [(1, None), (3600, Some(hour))] {
            refused(left, needed).unwrap();
        }
        for (left, needed, says) in [
            (0, None, "ended at 2027-01-15T08:00:00Z"),
            (-60, Some(hour), "ended at 2027-01-15T07:59:00Z"),
            (3599, Some(hour), "--credentials-for PT1H"),
        ] {
            let error = refused(left, needed).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(says) && text.contains("s3://bucket/in"),
                "{text}"
            );
            assert_eq!(error.exit_code(), ExitCode::StorageFailed);
        }
    }

    #[test]
    fn a_run_that_ends_before_them_is_not_warned_of() {
        assert_eq!(outlived(time(100), time(0), 100.0), None);
        assert_eq!(outlived(time(100), time(0), 100.5), Some(time(101)));
        assert_eq!(
            outlived(time(100), time(0), f64::INFINITY),
            Some(Timestamp::MAX)
        );
    }
}
