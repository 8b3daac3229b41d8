//! The streaming mode of the contract: one container serves many members, works (one of a member
//! each) are handed over as folders, and windows of lead time are taken from it while it goes on.
//! `docs/container-contract.md` is its specification.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DatastoreInputPath, OutputRequest, PROGRESS_PREFIX};
use crate::Period;

/// The label of an image that knows the mode; its value is [`LABEL_VALUE`].
pub const LABEL: &str = "io.mlwm.streaming";

/// The version of the mode.
pub const LABEL_VALUE: &str = "1";

/// Where the folder of a stream is in the container.
pub const STREAM_DIR: &str = "/mlwm/stream";

/// The folder of the stream in which works appear; read-only for the container.
pub const IN: &str = "in";

/// The folder of the stream in which windows appear.
pub const OUT: &str = "out";

/// The file of a work that says what to do.
pub const WORK_FILE: &str = "work.json";

/// The folder of a work with a file for every window that may be written.
pub const GO: &str = "go";

/// The file beside the works that says that no more will come.
pub const END: &str = "end";

/// One forecast of one member. Keys that are not known are kept out, so that a newer mlwm can run an
/// older image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Its number, which is also the name of its folder: `0001`.
    pub work: String,
    /// The ensemble member; 0 is the control.
    pub member: u32,
    /// The seed of its random numbers.
    pub seed: u64,
    /// The identity of the task, to be recorded in what is written.
    pub task: String,
    /// Paths by name of the configuration's input.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// Paths by `{datastore}.{input}`.
    #[serde(default)]
    pub datastore_inputs: BTreeMap<String, String>,
    /// What to write.
    pub outputs: Vec<WindowedOutput>,
}

impl Work {
    /// Reads a [`WORK_FILE`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Where the inputs of datastores are. The datastore's name ends at the first dot.
    ///
    /// # Errors
    /// The key that has no dot.
    pub fn datastore_inputs(&self) -> Result<Vec<DatastoreInputPath>, String> {
        let entry = |(key, path): (&String, &String)| {
            let (datastore, input) = key
                .split_once('.')
                .filter(|(datastore, input)| !datastore.is_empty() && !input.is_empty())
                .ok_or_else(|| {
                    format!("`{key}` among `datastore_inputs` is not of the form `datastore.input`")
                })?;
            Ok(DatastoreInputPath {
                datastore: datastore.to_owned(),
                input: input.to_owned(),
                path: path.clone(),
            })
        };
        self.datastore_inputs.iter().map(entry).collect()
    }
}

/// An output that is cut into windows. Its path is a folder, in which every window is a Zarr store
/// of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowedOutput {
    /// The output.
    #[serde(flatten)]
    pub output: OutputRequest,
    /// The length of a window; the whole forecast if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Period>,
}

/// A window of lead time: the steps in `(from, to]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Its first step, from 1.
    pub first_step: u64,
    /// Its last step.
    pub last_step: u64,
    /// The lead time before its first step, in hours.
    pub from_hours: u64,
    /// The lead time of its last step, in hours, rounded up.
    pub to_hours: u64,
}

/// The longest forecast that is cut into windows, in steps.
const MOST_STEPS: u64 = 10_000_000;

impl Window {
    /// The windows of a forecast, in order; one if no length is given. The last may be shorter.
    ///
    /// # Errors
    /// If the length is not a whole number of steps and hours.
    pub fn all(
        steps: u64,
        step_seconds: i64,
        length: Option<Period>,
    ) -> Result<Vec<Self>, InvalidWindow> {
        let step = u64::try_from(step_seconds).unwrap_or(0);
        let whole = steps.saturating_mul(step);
        let seconds = length.map_or(whole, |length| length.seconds().unsigned_abs());
        let invalid = InvalidWindow {
            length: length.map_or(String::new(), |length| length.to_string()),
            step_seconds,
        };
        if steps == 0 || steps > MOST_STEPS || step == 0 {
            return Err(invalid);
        }
        let is_whole =
            seconds.is_multiple_of(step) && (seconds.is_multiple_of(3600) || length.is_none());
        if !is_whole || seconds == 0 {
            return Err(invalid);
        }
        let per_window = seconds / step;
        let window = |before: u64| {
            let last_step = (before + per_window).min(steps);
            Self {
                first_step: before + 1,
                last_step,
                from_hours: before * step / 3600,
                to_hours: (last_step * step).div_ceil(3600),
            }
        };
        Ok((0..steps.div_ceil(per_window))
            .map(|number| window(number * per_window))
            .collect())
    }

    /// The number of its steps.
    pub fn steps(&self) -> u64 {
        self.last_step + 1 - self.first_step
    }
}

/// Its name, `h000-072`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h{:03}-{:03}", self.from_hours, self.to_hours)
    }
}

/// A length of windows that a forecast cannot be cut into.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "windows of `{length}` cannot be made of steps of {step_seconds} s: give a whole number of steps that is a whole number of hours"
)]
pub struct InvalidWindow {
    /// The length asked for.
    pub length: String,
    /// Length of a step in seconds.
    pub step_seconds: i64,
}

/// What a container says of a work on its standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step is done.
    Step {
        /// The work.
        work: String,
        /// Steps done.
        step: u64,
        /// Steps in all.
        of: u64,
    },
    /// All outputs have a window; it belongs to the host from now on.
    Window {
        /// The work.
        work: String,
        /// Name of the window.
        window: String,
    },
    /// All windows are there.
    Done {
        /// The work.
        work: String,
    },
    /// The work will not be finished; the container may go on with the next.
    Failed {
        /// The work.
        work: String,
        /// Why, in one sentence.
        why: String,
        /// The exit code that a container of this member alone would have had, if known.
        code: Option<u8>,
    },
}

/// The JSON of a line.
#[derive(Default, Serialize, Deserialize)]
struct Line {
    work: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
}

impl Event {
    /// The line to print.
    pub fn line(&self) -> String {
        let line = match self.clone() {
            Self::Step { work, step, of } => Line {
                work,
                step: Some(step),
                of: Some(of),
                ..Line::default()
            },
            Self::Window { work, window } => Line {
                work,
                window: Some(window),
                ..Line::default()
            },
            Self::Done { work } => Line {
                work,
                done: Some(true),
                ..Line::default()
            },
            Self::Failed { work, why, code } => Line {
                work,
                failed: Some(why),
                code,
                ..Line::default()
            },
        };
        let json = serde_json::to_string(&line).unwrap_or_default();
        format!("{PROGRESS_PREFIX}{json}")
    }

    /// Reads a line of the container's output; `None` if it says nothing of a work.
    pub fn parse(line: &str) -> Option<Self> {
        let line: Line =
            serde_json::from_str(line.trim_end().strip_prefix(PROGRESS_PREFIX)?).ok()?;
        let work = line.work;
        if let Some(why) = line.failed {
            let code = line.code;
            return Some(Self::Failed { work, why, code });
        }
        if let Some(window) = line.window {
            return Some(Self::Window { work, window });
        }
        match (line.done, line.step, line.of) {
            (Some(true), _, _) => Some(Self::Done { work }),
            (_, Some(step), Some(of)) => Some(Self::Step { work, step, of }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Progress;

    #[test]
    fn windows_are_named_by_their_hours_and_the_last_may_be_shorter() {
        let six_hours = 6 * 3600;
        let windows = Window::all(132, six_hours, "PT72H".parse().ok()).unwrap();
        let names: Vec<String> = windows.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), 11);
        assert_eq!(
            (names[0].as_str(), names[10].as_str()),
            ("h000-072", "h720-792")
        );
        assert_eq!((windows[1].first_step, windows[1].last_step), (13, 24));
        let cut = Window::all(134, six_hours, "PT72H".parse().ok()).unwrap();
        assert_eq!(cut[11].to_string(), "h792-804");
        assert_eq!(cut[11].steps(), 2);
        let whole = Window::all(200, six_hours, None).unwrap();
        assert_eq!(
            (whole.len(), whole[0].to_string().as_str()),
            (1, "h000-1200")
        );
        let minutes = Window::all(9, 600, None).unwrap();
        assert_eq!(minutes[0].to_string(), "h000-002");
        for (steps, seconds, length) in [
            (12, six_hours, "PT7H"),
            (12, 600, "PT30M"),
            (0, six_hours, "PT6H"),
            (u64::MAX, six_hours, "PT6H"),
            (12, -1, "PT6H"),
        ] {
            assert!(
                Window::all(steps, seconds, length.parse().ok()).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn lines_round_trip_and_are_progress_too() {
        let work = || "0001".to_owned();
        for (event, line) in [
            (
                Event::Step {
                    work: work(),
                    step: 3,
                    of: 132,
                },
                r#"::mlwm {"work":"0001","step":3,"of":132}"#,
            ),
            (
                Event::Window {
                    work: work(),
                    window: "h000-072".into(),
                },
                r#"::mlwm {"work":"0001","window":"h000-072"}"#,
            ),
            (
                Event::Done { work: work() },
                r#"::mlwm {"work":"0001","done":true}"#,
            ),
            (
                Event::Failed {
                    work: work(),
                    why: "no \"disk\"".into(),
                    code: Some(12),
                },
                r#"::mlwm {"work":"0001","failed":"no \"disk\"","code":12}"#,
            ),
        ] {
            assert_eq!(event.line(), line);
            assert_eq!(Event::parse(&format!("{line}\n")), Some(event));
        }
        let step = Progress::parse(r#"::mlwm {"work":"0001","step":3,"of":132}"#);
        assert_eq!(step, Some(Progress { step: 3, of: 132 }));
        assert_eq!(Event::parse(r#"::mlwm {"step":3,"of":132}"#), None);
        assert_eq!(Event::parse(r#"::mlwm {"work":"1","done":false}"#), None);
        assert_eq!(Event::parse("loading"), None);
    }

    #[test]
    fn a_work_is_read_with_what_it_leaves_out() {
        let work = Work::parse(
            r#"{"work":"0001","member":3,"seed":9007199254740991,"task":"sha256:ab","later":1,
                "datastore_inputs":{"danra.levels.500":"/in/a"},
                "outputs":[{"name":"surface","path":"/out/0001/surface","variables":["t2m"],
                            "zarr_format":3,"window":"PT72H"},
                           {"name":"all","path":"/out/0001/all"}]}"#,
        )
        .unwrap();
        assert_eq!((work.member, work.seed), (3, (1 << 53) - 1));
        let inputs = work.datastore_inputs().unwrap();
        assert_eq!(
            (inputs[0].datastore.as_str(), inputs[0].input.as_str()),
            ("danra", "levels.500")
        );
        assert_eq!(work.outputs[0].window.unwrap().seconds(), 72 * 3600);
        assert_eq!(
            (work.outputs[1].window, work.outputs[1].output.zarr_format),
            (None, 3)
        );
        let text = serde_json::to_string(&work).unwrap();
        assert_eq!(Work::parse(&text), Ok(work.clone()));
        let wrong = Work {
            datastore_inputs: BTreeMap::from([("danra".to_owned(), "/a".to_owned())]),
            ..work
        };
        assert!(wrong.datastore_inputs().unwrap_err().contains("`danra`"));
        assert!(Work::parse("{}").is_err());
    }
}
