//! The other end of [`super::demo`]'s children: they end with the program that started them, however it ends.

use std::{
    io::{self, Read},
    thread,
    time::Duration,
};

use rustix::process::{Signal, getpid, kill_process};

use super::leave;

/// How long an orderly end may take once the parent is gone.
const GRACE: Duration = Duration::from_secs(3);

/// Sends SIGINT to this process when stdin is closed, and ends it when that does not help.
pub fn watch() -> io::Result<()> {
    thread::Builder::new().name("parent".to_owned()).spawn(|| {
        let mut buffer = [0; 64];
        // Whatever comes is not for us; only the end matters.
        while matches!(io::stdin().read(&mut buffer), Ok(read) if read > 0) {}
        let _ = kill_process(getpid(), Signal::INT);
        thread::sleep(GRACE);
        leave(1);
    })?;
    Ok(())
}
