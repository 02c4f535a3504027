//! A progress bar on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

const BAR_CELLS: usize = 30;
const REDRAW: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows on stderr how far something is. Cleared when dropped.
pub struct Progress {
    label: &'static str,
    terminal: bool,
    shown: Option<Instant>,
    drawn: bool,
}

impl Progress {
    /// A bar that begins with `label`.
    pub fn new(label: &'static str) -> Self {
        Self { label, terminal: io::stderr().is_terminal(), shown: None, drawn: false }
    }

    /// Shows `share` (0 to 1) and `text`, unless something was shown a moment ago.
    pub fn show(&mut self, share: f64, text: &str) {
        let pause = if self.terminal { REDRAW } else { LINE_EVERY };
        let now = Instant::now();
        if self.shown.is_some_and(|shown| now.duration_since(shown) < pause) {
            return;
        }
        self.shown = Some(now);
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        let mut stderr = io::stderr().lock();
        // A bar that cannot be drawn is no reason to stop.
        let _ = if self.terminal {
            let full = (share * BAR_CELLS as f64).round() as usize;
            self.drawn = true;
            let bar: String = (0..BAR_CELLS).map(|cell| if cell < full { '━' } else { '╌' }).collect();
            write!(stderr, "\r\x1b[2K{} {bar} {:3.0} %  {text}", self.label, share * 100.0)
                .and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{} {:3.0} %  {text}", self.label, share * 100.0)
        };
    }

    /// Takes the bar off the terminal.
    pub fn clear(&mut self) {
        if self.drawn {
            self.drawn = false;
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[2K").and_then(|()| stderr.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
