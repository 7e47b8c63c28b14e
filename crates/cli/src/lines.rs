//! Lines in and lines out, each on a thread of its own, so that a slow disk or a full pipe does not hold up the sockets. What
//! waits in between is bounded.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

/// A batch is handed on when it has so many lines or bytes: one line at a time would cost more in waking than in reading.
const BATCH_LINES: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;

/// A line that was read, without its end.
pub(crate) struct Line {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Where in the source the next one begins, in bytes.
    pub(crate) end: u64,
    pub(crate) text: Vec<u8>,
}

/// What the reading thread hands on, a batch of lines at a time.
pub(crate) type Batch = Result<Vec<Line>, Broken>;

/// Why there are no more lines.
pub(crate) enum Broken {
    /// A line, by its number, is longer than any that makes sense.
    TooLong(u64),
    /// The source could not be read.
    Unreadable(io::Error),
}

/// Reads lines of at most `max` bytes. `begun` is how many bytes and lines are behind already. Empty lines are passed over.
/// The channel closes at the end.
pub(crate) fn read(
    source: Box<dyn Read + Send>,
    begun: (u64, u64),
    max: usize,
) -> mpsc::Receiver<Batch> {
    let (sender, receiver) = mpsc::channel(1);
    // Not waited for: it may hang on a terminal when everything else is over.
    std::thread::spawn(move || {
        let mut source = BufReader::with_capacity(64 * 1024, source);
        let (mut end, mut number) = begun;
        loop {
            let mut batch = Vec::new();
            let mut bytes = 0;
            let broken = loop {
                if batch.len() >= BATCH_LINES || bytes >= BATCH_BYTES {
                    break None;
                }
                let mut text = Vec::new();
                match (&mut source)
                    .take(max as u64 + 1)
                    .read_until(b'\n', &mut text)
                {
                    Ok(0) => break Some(None),
                    Ok(read) => {
                        end += read as u64;
                        number += 1;
                    }
                    Err(error) => break Some(Some(Broken::Unreadable(error))),
                }
                if text.last() == Some(&b'\n') {
                    text.pop();
                } else if text.len() > max {
                    break Some(Some(Broken::TooLong(number)));
                }
                if !text.trim_ascii().is_empty() {
                    bytes += text.len();
                    batch.push(Line { number, end, text });
                }
            };
            if !batch.is_empty() && sender.blocking_send(Ok(batch)).is_err() {
                return;
            }
            match broken {
                None => {}
                Some(None) => return,
                Some(Some(broken)) => {
                    let _ = sender.blocking_send(Err(broken));
                    return;
                }
            }
        }
    });
    receiver
}

/// A thread that writes what it is given, in order.
pub(crate) struct Writer {
    sender: mpsc::Sender<Vec<u8>>,
    thread: JoinHandle<io::Result<()>>,
}

/// The writer has failed: [`Writer::finish`] says how.
pub(crate) struct Closed;

impl Writer {
    /// Begins to write there.
    pub(crate) fn start(mut target: Box<dyn Write + Send>) -> Writer {
        let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(4);
        let thread = std::thread::spawn(move || {
            while let Some(bytes) = receiver.blocking_recv() {
                target.write_all(&bytes)?;
            }
            target.flush()
        });
        Writer { sender, thread }
    }

    /// Hands bytes over; waits while too much is waiting.
    pub(crate) async fn write(&self, bytes: Vec<u8>) -> Result<(), Closed> {
        self.sender.send(bytes).await.map_err(|_| Closed)
    }

    /// Waits until all is written. Whether somebody still listens: a pipe whose other end was closed, as by `head`, is no
    /// error, and the end of what is wanted.
    pub(crate) fn finish(self) -> io::Result<bool> {
        drop(self.sender);
        match self.thread.join() {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Ok(Err(error)) => Err(error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &'static str, max: usize) -> (Vec<(u64, u64, String)>, bool) {
        let mut batches = read(Box::new(text.as_bytes()), (100, 7), max);
        let mut lines = Vec::new();
        while let Some(batch) = batches.blocking_recv() {
            let Ok(batch) = batch else {
                return (lines, true);
            };
            lines.extend(batch.into_iter().map(|line| {
                let text = String::from_utf8(line.text).unwrap();
                (line.number, line.end, text)
            }));
        }
        (lines, false)
    }

    #[test]
    fn lines_know_where_they_end() {
        let (lines, broken) = all("a\n\n bc\n\nlast", 5);
        let expected = [(8, 102, "a"), (10, 107, " bc"), (12, 112, "last")];
        let expected = expected.map(|(n, end, text)| (n, end, text.to_owned()));
        assert_eq!(lines, expected);
        assert!(!broken);
    }

    #[test]
    fn a_line_that_is_too_long_ends_it() {
        let (lines, broken) = all("abcde\nabcdef\na\n", 5);
        assert_eq!((lines.len(), broken), (1, true));
    }
}
