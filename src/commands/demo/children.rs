//! The demo's processes: started from this very executable, watched, and never left behind.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Lines of stderr that are shown when a child fails.
const TAIL: usize = 20;
/// Time for an orderly end.
const GRACE: Duration = Duration::from_secs(3);

/// A running `scenelex`.
pub struct Child {
    name: &'static str,
    process: process::Child,
    /// Held open: the child ends when it is closed, even if this program is killed.
    stdin: Option<ChildStdin>,
    tail: Arc<Mutex<VecDeque<String>>>,
    log: PathBuf,
    reader: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts this executable with `arguments`, its stderr in `<folder>/<name>.log`.
    pub fn start(name: &'static str, arguments: &[String], folder: &Path) -> Result<Self> {
        let executable = std::env::current_exe().context("cannot find this executable")?;
        let log = folder.join(format!("{name}.log"));
        let mut file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut process = Command::new(executable)
            .arg("--until-stdin-closes")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C at a terminal is for this program; what becomes of its children it says itself, once.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        let stdin = process.stdin.take();
        let stderr = process.stderr.take();
        let tail = Arc::new(Mutex::new(VecDeque::with_capacity(TAIL)));
        let lines = Arc::clone(&tail);
        let reader = thread::Builder::new().name(format!("{name} stderr")).spawn(move || {
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n')).map_while(Result::ok)
            {
                let line = String::from_utf8_lossy(&line).into_owned();
                // A full disk must not stop the child at its next line.
                let _ = writeln!(file, "{line}");
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == TAIL {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        });
        // From here on a failure ends the child: dropping `Self` does.
        let (reader, failed) = match reader {
            Ok(reader) => (Some(reader), None),
            Err(error) => (None, Some(error)),
        };
        let child = Self { name, process, stdin, tail, log, reader };
        match failed {
            None => Ok(child),
            Some(error) => Err(error).context("cannot start a thread"),
        }
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.try_wait().with_context(|| format!("cannot watch the {}", self.name))?.is_none())
    }

    /// An error with its last words when it has ended.
    pub fn must_run(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let words = self.last_words();
                bail!("the {} ended ({status})\n{words}", self.name)
            }
        }
    }

    /// An error with its last words unless it has ended well.
    pub fn must_have_succeeded(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                let words = self.last_words();
                bail!("the {} failed ({status})\n{words}", self.name)
            }
            None => bail!("the {} is still running", self.name),
        }
    }

    /// The end of its stderr.
    pub fn last_words(&mut self) -> String {
        // All of it, if it has ended: its end closes the pipe.
        if matches!(self.process.try_wait(), Ok(Some(_)))
            && let Some(reader) = self.reader.take()
        {
            let _ = reader.join();
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<String> = tail.iter().map(|line| format!("  {} | {line}", self.name)).collect();
        format!("{}\n(all of it: {})", lines.join("\n"), self.log.display())
    }

    /// Asks it to end, and makes it.
    pub fn stop(&mut self) {
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        // Not waited for yet, so the id is still the child's.
        let _ = kill_process(Pid::from_child(&self.process), Signal::INT);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        tracing::warn!("the {} did not end within {} s", self.name, GRACE.as_secs());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Closing stdin is a signal too, and a second one ends the child at once: only where it has ended already.
        self.stop();
        drop(self.stdin.take());
    }
}
