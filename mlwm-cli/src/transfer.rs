//! How the transfer of an artifact is shown, and how it is called off.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use mlwm_registries::RegistryOptions;
use mlwm_registries::signature::PublicKey;
use mlwm_storage::{Phase, Progress, ProgressEvent};
use tokio_util::sync::CancellationToken;

use crate::commands::stop_on_signal;
use crate::failure::Failure;

/// Files of public keys, with colons in between: one of them must have signed what is fetched.
const TRUSTED_KEYS: &str = "MLWM_TRUSTED_KEYS";

/// How often a line is printed where no bar can be drawn.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// After so long without a byte a transfer is said to be stalled.
const STALLED: Duration = Duration::from_secs(5);

/// Progress on standard error and a token that a signal cancels.
pub(crate) struct Transfer {
    /// For what transfers.
    pub(crate) progress: Progress,
    /// Cancelled by SIGINT and SIGTERM.
    pub(crate) cancel: CancellationToken,
    trusted_keys: Vec<PublicKey>,
    shown: Arc<Mutex<Shown>>,
}

impl Transfer {
    /// Starts to listen for signals; called inside the runtime.
    pub(crate) fn start() -> Result<Self, Failure> {
        Self::start_saying(
            "stopping: what is transferred is kept, and the same command goes on from there",
        )
    }

    /// The same; `stopping` is what a signal is answered with.
    pub(crate) fn start_saying(stopping: &'static str) -> Result<Self, Failure> {
        let trusted_keys = trusted_keys()?;
        let cancel = CancellationToken::new();
        stop_on_signal(&cancel, stopping)?;
        let shown = Arc::new(Mutex::new(Shown::new(std::io::stderr().is_terminal())));
        let reported = Arc::clone(&shown);
        let progress = Progress::new(move |event| {
            lock(&reported).tell(&event, Instant::now());
        });
        Ok(Self {
            progress,
            cancel,
            trusted_keys,
            shown,
        })
    }

    /// Options for registries whose transfers are shown and called off by this.
    pub(crate) fn options(&self) -> RegistryOptions {
        RegistryOptions {
            progress: self.progress.clone(),
            cancel: self.cancel.clone(),
            trusted_keys: self.trusted_keys.clone(),
            ..RegistryOptions::default()
        }
    }

    /// Takes the bar away and says what was moved, if anything was.
    pub(crate) fn finish(self) {
        lock(&self.shown).end(Instant::now());
    }
}

/// The keys that this user trusts: public keys of minisign in the files that the environment names.
/// One that cannot be read is an error: it would silently let everything pass.
fn trusted_keys() -> Result<Vec<PublicKey>, Failure> {
    let files = std::env::var_os(TRUSTED_KEYS).unwrap_or_default();
    let files = std::env::split_paths(&files).filter(|file| !file.as_os_str().is_empty());
    let read = |file: PathBuf| {
        PublicKey::read(&file).map_err(|error| {
            let failure = Failure::from(error);
            Failure::new(failure.code(), format!("{TRUSTED_KEYS}: {failure}"))
        })
    };
    files.map(read).collect()
}

fn lock(shown: &Mutex<Shown>) -> std::sync::MutexGuard<'_, Shown> {
    // A poisoned lock would only mean that a bar was left half drawn.
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is on the terminal.
struct Shown {
    terminal: bool,
    /// The stretch that goes on: one phase of one transfer.
    stretch: Option<Stretch>,
}

struct Stretch {
    first: ProgressEvent,
    last: ProgressEvent,
    began: Instant,
    /// When bytes came for the last time.
    moved: Instant,
    next_line: Instant,
    bar: Option<ProgressBar>,
}

impl Shown {
    fn new(terminal: bool) -> Self {
        Self {
            terminal,
            stretch: None,
        }
    }

    fn tell(&mut self, event: &ProgressEvent, now: Instant) {
        let continues = self.stretch.as_ref().is_some_and(|stretch| {
            stretch.last.phase == event.phase
                && stretch.last.total_bytes == event.total_bytes
                && stretch.last.done_bytes <= event.done_bytes
        });
        if !continues {
            self.end(now);
            self.stretch = Some(Stretch::begin(*event, now, self.terminal));
        }
        if let Some(stretch) = &mut self.stretch {
            stretch.go_on(*event, now);
        }
    }

    fn end(&mut self, now: Instant) {
        let Some(stretch) = self.stretch.take() else {
            return;
        };
        if let Some(bar) = &stretch.bar {
            bar.finish_and_clear();
        }
        if stretch.last.done_bytes > stretch.first.done_bytes {
            note!("{}", stretch.line(now));
        }
    }
}

impl Stretch {
    fn begin(event: ProgressEvent, now: Instant, terminal: bool) -> Self {
        let bar = terminal.then(|| {
            let style = ProgressStyle::with_template(
                "  {msg:11} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}",
            );
            ProgressBar::new(event.total_bytes)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_message(doing(event.phase))
                // What an earlier run transferred counts for the bar, not for the rate.
                .with_position(event.done_bytes)
        });
        if let Some(bar) = &bar {
            bar.reset_eta();
        }
        Self {
            first: event,
            last: event,
            began: now,
            moved: now,
            next_line: now + BETWEEN_LINES,
            bar,
        }
    }

    fn go_on(&mut self, event: ProgressEvent, now: Instant) {
        if event.done_bytes > self.last.done_bytes {
            self.moved = now;
        }
        if event.kept_bytes > self.last.kept_bytes {
            // The bar measures its rate from here.
            if let Some(bar) = &self.bar {
                bar.set_position(event.done_bytes);
                bar.reset_eta();
            }
        }
        self.last = event;
        match &self.bar {
            Some(bar) => bar.set_position(event.done_bytes),
            None if now >= self.next_line => {
                note!("{}", self.line(now));
                self.next_line = now + BETWEEN_LINES;
            }
            None => {}
        }
    }

    /// `uploading: 12.00 MiB of 64.00 MiB, 3.20 MiB/s, 16 s left`.
    fn line(&self, now: Instant) -> String {
        let (last, total) = (self.last.done_bytes, self.last.total_bytes);
        let what = format!(
            "{}: {} of {}",
            doing(self.last.phase),
            HumanBytes(last),
            HumanBytes(total),
        );
        // Of what was done before this stretch, some may have been moved by this command.
        let before = self.first.done_bytes - self.first.kept_bytes;
        let kept = self.last.kept_bytes;
        let moved = last.saturating_sub(kept + before);
        if moved == 0 && last == total {
            return format!("{what}, already there");
        }
        let seconds = now.duration_since(self.began).as_secs_f64();
        let rate = moved as f64 / seconds.max(1e-3);
        let continued = match kept {
            0 => String::new(),
            kept => format!(" ({} were there)", HumanBytes(kept)),
        };
        let rest = match total.saturating_sub(last) {
            0 => format!("{seconds:.1} s"),
            _ if now.duration_since(self.moved) >= STALLED => "stalled".to_owned(),
            left if moved > 0 => format!("{:.0} s left", left as f64 / rate),
            _ => format!("{seconds:.1} s"),
        };
        format!("{what}{continued}, {}/s, {rest}", HumanBytes(rate as u64))
    }
}

fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Staging | Phase::Downloading => "downloading",
        Phase::Hashing => "hashing",
        Phase::Uploading => "uploading",
        Phase::Verifying => "verifying",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(done_bytes: u64) -> ProgressEvent {
        ProgressEvent {
            phase: Phase::Uploading,
            done_bytes,
            kept_bytes: 0,
            total_bytes: 64 << 20,
            done_objects: 0,
            total_objects: 1,
        }
    }

    #[test]
    fn what_an_earlier_run_transferred_does_not_count_for_the_rate() {
        let (began, mut shown) = (Instant::now(), Shown::new(false));
        let kept = |done_bytes| ProgressEvent {
            kept_bytes: 32 << 20,
            ..event(done_bytes)
        };
        shown.tell(&event(0), began);
        shown.tell(&kept(32 << 20), began);
        let later = began + Duration::from_secs(2);
        shown.tell(&kept(48 << 20), later);
        let stretch = shown.stretch.as_ref().unwrap();
        assert_eq!(
            stretch.line(later),
            "uploading: 48.00 MiB of 64.00 MiB (32.00 MiB were there), 8.00 MiB/s, 2 s left"
        );
        assert!(stretch.line(later + STALLED).ends_with(", stalled"));
    }

    #[test]
    fn what_was_there_as_a_whole_was_not_moved() {
        let (began, mut shown) = (Instant::now(), Shown::new(false));
        shown.tell(&event(0), began);
        let all = ProgressEvent {
            kept_bytes: 64 << 20,
            ..event(64 << 20)
        };
        shown.tell(&all, began + Duration::from_millis(2));
        let line = shown.stretch.as_ref().unwrap().line(began);
        assert_eq!(line, "uploading: 64.00 MiB of 64.00 MiB, already there");
    }

    #[test]
    fn nothing_acknowledged_is_a_stall_and_no_guess() {
        let (began, mut shown) = (Instant::now(), Shown::new(false));
        shown.tell(&event(0), began);
        let stretch = shown.stretch.as_ref().unwrap();
        let line = |after| stretch.line(began + Duration::from_millis(after));
        assert_eq!(line(300), "uploading: 0 B of 64.00 MiB, 0 B/s, 0.3 s");
        assert_eq!(line(9000), "uploading: 0 B of 64.00 MiB, 0 B/s, stalled");
    }

    #[test]
    fn another_transfer_begins_anew() {
        let (began, mut shown) = (Instant::now(), Shown::new(false));
        shown.tell(&event(64 << 20), began);
        shown.tell(&event(0), began);
        assert_eq!(shown.stretch.unwrap().first.done_bytes, 0);
    }
}
