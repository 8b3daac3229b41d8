//! The windows of lead time that a forecast is cut into.

use std::ops::Range;

use mlwm_spec::AnalysisTime;

use super::StoreError;

/// The steps of a forecast, cut into windows of lead time. Window 0 holds the lead times in
/// (0, length], window 1 those in (length, 2 · length]; the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    analysis_time: AnalysisTime,
    step_seconds: u64,
    steps: u64,
    steps_each: u64,
}

impl Windows {
    /// Cuts a forecast of a number of steps into windows of a length.
    ///
    /// # Errors
    /// [`StoreError::Windows`] if the length is not a whole number of steps, or there is nothing to
    /// cut: a window must be whole inner chunks, or its shard would be written twice.
    pub fn new(
        analysis_time: AnalysisTime,
        step_seconds: u64,
        steps: u64,
        window_seconds: u64,
    ) -> Result<Self, StoreError> {
        let refuse = |reason: String| Err(StoreError::Windows(reason));
        if step_seconds == 0 || steps == 0 || window_seconds == 0 {
            return refuse(format!(
                "a forecast of {steps} steps of {step_seconds} s cannot be cut into windows of \
                 {window_seconds} s; all three must be positive"
            ));
        }
        if !window_seconds.is_multiple_of(step_seconds) {
            return refuse(format!(
                "a window of {window_seconds} s is not a whole number of steps of {step_seconds} s; \
                 choose a multiple"
            ));
        }
        let end = step_seconds
            .checked_mul(steps)
            .and_then(|length| i64::try_from(length).ok())
            .and_then(|length| length.checked_add(analysis_time.unix_seconds()));
        if end.is_none() {
            return refuse(format!(
                "a forecast of {steps} steps of {step_seconds} s is too long; choose fewer"
            ));
        }
        Ok(Self {
            analysis_time,
            step_seconds,
            steps,
            steps_each: (window_seconds / step_seconds).min(steps),
        })
    }

    /// When the forecast starts.
    pub fn analysis_time(&self) -> AnalysisTime {
        self.analysis_time
    }

    /// The number of steps of the whole forecast.
    pub fn steps_in_all(&self) -> u64 {
        self.steps
    }

    /// The number of steps of every window but the last.
    pub fn steps_each(&self) -> u64 {
        self.steps_each
    }

    /// The number of windows.
    pub fn count(&self) -> u64 {
        self.steps.div_ceil(self.steps_each)
    }

    /// The steps of a window, counted from 0 (whose lead time is one step). Empty beyond the last.
    pub fn steps(&self, window: u64) -> Range<u64> {
        let start = window.saturating_mul(self.steps_each).min(self.steps);
        start..start.saturating_add(self.steps_each).min(self.steps)
    }

    /// The lead time of a step in seconds.
    pub fn lead_seconds(&self, step: u64) -> i64 {
        ((step + 1) * self.step_seconds) as i64
    }

    /// The valid time of a step in seconds since 1970-01-01T00:00Z.
    pub fn valid_time(&self, step: u64) -> i64 {
        self.analysis_time.unix_seconds() + self.lead_seconds(step)
    }

    /// The windows whose lead times are in (from, to] hours.
    pub(crate) fn within(&self, hours: &Range<u64>) -> Result<Range<u64>, StoreError> {
        let refuse = |reason: &str| {
            Err(StoreError::Windows(format!(
                "the hours {}-{} {reason}",
                hours.start, hours.end
            )))
        };
        let (from, to) = (
            hours.start.saturating_mul(3600),
            hours.end.saturating_mul(3600),
        );
        let length = self.steps_each * self.step_seconds;
        let end = self.steps * self.step_seconds;
        if from >= to || to > end {
            return refuse(&format!(
                "are not a part of the forecast, which is {} h long",
                end / 3600
            ));
        }
        if !from.is_multiple_of(length) || !(to == end || to.is_multiple_of(length)) {
            return refuse(&format!(
                "do not begin and end where windows of {} do: their files would be written more \
                 than once; choose multiples of the window",
                lead_text(length as i64)
            ));
        }
        Ok(from / length..to.div_ceil(length))
    }
}

/// A lead time as people read it: `6 h`, `90 min`, `20 s`.
pub(crate) fn lead_text(seconds: i64) -> String {
    match seconds {
        _ if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        _ if seconds % 60 == 0 => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}
