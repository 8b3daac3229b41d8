//! Stretches of time, and how much of a whole they cover.

use serde::Serialize;

/// From one time to a later one, in seconds since some beginning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Span {
    pub(crate) fn seconds(self) -> f64 {
        (self.to - self.from).max(0.0)
    }
}

/// How long models stood still while others, or they themselves, were yet to come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Idle {
    /// Seconds from the first time that a model ran to the last.
    pub seconds: f64,
    /// Seconds of them in which at least one ran.
    pub busy_seconds: f64,
    /// The share of them in which none did, from 0 to 1.
    pub idle_share: f64,
    /// Whether only tasks that ask for GPUs are looked at: then it is the share in which the GPUs were idle.
    pub of_gpus: bool,
}

/// Of the times at which models ran; `None` if none did. Spans may lie over each other.
pub(crate) fn idle(mut spans: Vec<Span>, of_gpus: bool) -> Option<Idle> {
    spans.sort_by(|a, b| a.from.total_cmp(&b.from));
    let first = spans.first()?.from;
    let (mut busy, mut end) = (0.0, first);
    for span in &spans {
        busy += (span.to - span.from.max(end)).max(0.0);
        end = end.max(span.to);
    }
    let seconds = end - first;
    Some(Idle {
        seconds,
        busy_seconds: busy,
        idle_share: match seconds > 0.0 {
            true => ((seconds - busy) / seconds).clamp(0.0, 1.0),
            false => 0.0,
        },
        of_gpus,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spans: &[(f64, f64)]) -> Option<Idle> {
        let spans = spans.iter().map(|(from, to)| Span {
            from: *from,
            to: *to,
        });
        idle(spans.collect(), true)
    }

    #[test]
    fn time_at_which_several_run_counts_once() {
        let idle = of(&[(10.0, 20.0), (30.0, 40.0), (15.0, 25.0), (32.0, 34.0)]).unwrap();
        assert_eq!((idle.seconds, idle.busy_seconds), (30.0, 25.0));
        assert!((idle.idle_share - 5.0 / 30.0).abs() < 1e-12);
        assert_eq!(of(&[(3.0, 4.0), (4.0, 9.0)]).unwrap().idle_share, 0.0);
    }

    /// The loop of scripts that fetch (15 s), run (480 s) and publish (30 s) one of 50 members after the
    /// other, as it was measured.
    #[test]
    fn a_serial_loop_is_seen_to_idle() {
        let spans: Vec<(f64, f64)> = (0..50)
            .map(|member| 525.0 * f64::from(member) + 15.0)
            .map(|from| (from, from + 480.0))
            .collect();
        let share = of(&spans).unwrap().idle_share;
        assert!(
            (share - 49.0 * 45.0 / (50.0 * 525.0 - 45.0)).abs() < 1e-9,
            "{share}"
        );
    }

    #[test]
    fn what_never_ran_has_no_share() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(5.0, 5.0)]).unwrap().idle_share, 0.0);
    }
}
