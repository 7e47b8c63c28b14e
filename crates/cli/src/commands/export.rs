//! `quorate export`

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use quorate_client::{Client, Error, Keys};
use quorate_protocol::Options;
use serde_json::json;
use tokio::sync::mpsc;

use crate::cluster::Patience;
use crate::commands::list::PAGE_KEYS;
use crate::failure::Failure;
use crate::lines::Writer;
use crate::ndjson::{Entry, Kept};
use crate::options::{ClusterArgs, ReadArgs, TimeoutArgs};
use crate::output::{self, Form, human_bytes};
use crate::progress::Progress;
use crate::runtime;

/// Keys that are read at one time.
const IN_FLIGHT_MAX: usize = 64;

/// Bytes of values that may be on their way at one time. How large a value is shows when it is there; so the number of
/// keys in flight begins small, and follows the largest value seen lately.
const BYTES_IN_FLIGHT_MAX: usize = 64 * 1024 * 1024;

/// Write buckets as lines of JSON
///
/// One line a key with "bucket", "key", "value" or "value_base64", "content_type", "meta", and "expires" if the value ends; a key with siblings has "siblings" with all of
/// them. `quorate import` reads them back exactly. Keys come in order; what is written meanwhile may or may not be among them. An export to a file that
/// was interrupted goes on with --resume.
#[derive(clap::Args)]
pub(crate) struct Export {
    /// The buckets
    #[arg(required = true, value_name = "BUCKET")]
    buckets: Vec<String>,

    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Go on after the last whole line of the file
    #[arg(long, requires = "file", conflicts_with = "after")]
    resume: bool,

    /// Only keys after this one; of one bucket
    #[arg(long, value_name = "KEY")]
    after: Option<String>,

    /// Only keys that begin so
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,

    #[command(flatten)]
    timeout: TimeoutArgs,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What was exported.
#[derive(Default)]
struct Counts {
    keys: u64,
    siblings: u64,
    bytes: u64,
}

/// How an export went on: to its end, until nobody read any more, or until it failed after some key.
enum Ended {
    Whole,
    Unheard,
    Failed(String),
}

impl Export {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        if self.after.is_some() && self.buckets.len() > 1 {
            return Err(Failure::Usage(
                "--after is about the keys of one bucket: export one at a time with it".to_owned(),
            ));
        }
        let (target, begun): (Box<dyn Write + Send>, _) = match &self.file {
            None => (Box::new(io::stdout()), None),
            Some(path) if self.resume => {
                let (file, last) = reopen(path)?;
                (Box::new(file), last)
            }
            Some(path) => (Box::new(create(path)?), None),
        };
        let mut buckets = &self.buckets[..];
        let mut after = self.after.clone();
        if let Some((bucket, key)) = begun {
            let Some(at) = buckets.iter().position(|b| *b == bucket) else {
                return Err(Failure::new(format!(
                    "the last line of the file is of bucket '{bucket}', which is not to be exported: name the same buckets in \
                     the same order as before"
                )));
            };
            buckets = &buckets[at..];
            output::remark(&format!("going on in '{bucket}' after '{key}'"));
            after = Some(key);
        }
        let began = std::time::Instant::now();
        let mut counts = Counts::default();
        let (ended, last) = runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let writer = Writer::start(target);
            let mut progress = Progress::start("keys", None, None);
            let mut ended = Ended::Whole;
            let mut last = None;
            for bucket in buckets {
                let keys = client
                    .list(bucket)
                    .prefix(&self.prefix)
                    .after(after.take())
                    .page_size(PAGE_KEYS)
                    .options(self.read.into_options(Options::default()))
                    .timeout(self.timeout.timeout)
                    .keys();
                ended = self
                    .bucket(
                        &client,
                        bucket,
                        keys,
                        &writer,
                        &mut progress,
                        &mut counts,
                        &mut last,
                    )
                    .await;
                if !matches!(ended, Ended::Whole) {
                    break;
                }
            }
            progress.finish();
            match writer.finish() {
                Ok(true) => {}
                Ok(false) => ended = Ended::Unheard,
                Err(error) => ended = Ended::Failed(format!("cannot write: {error}")),
            }
            Ok((ended, last))
        })?;
        if let Ended::Failed(why) = ended {
            return Err(Failure::new(format!(
                "{why}\n{}",
                self.how_to_resume(last.as_deref())
            )));
        }
        let seconds = began.elapsed().as_secs_f64();
        let Counts {
            keys,
            siblings,
            bytes,
        } = counts;
        match form {
            // The lines went to standard output.
            _ if self.file.is_none() => output::remark(&format!(
                "{keys} keys, {} in {seconds:.1} s; {siblings} of them with siblings",
                human_bytes(bytes)
            )),
            Form::Json => output::json(&json!({
                "buckets": self.buckets,
                "keys": keys,
                "with_siblings": siblings,
                "bytes": bytes,
                "seconds": seconds,
            }))?,
            Form::Table => output::line(&format!(
                "{keys} keys, {} in {seconds:.1} s; {siblings} of them with siblings",
                human_bytes(bytes)
            ))?,
        }
        Ok(())
    }

    /// Exports what is left of one bucket.
    #[expect(
        clippy::too_many_arguments,
        reason = "they live as long as the whole export"
    )]
    async fn bucket(
        &self,
        client: &Client,
        bucket: &str,
        mut keys: Keys,
        writer: &Writer,
        progress: &mut Progress,
        counts: &mut Counts,
        last: &mut Option<String>,
    ) -> Ended {
        // By itself, so that the next page is asked for while the keys of this one are read.
        let (sender, mut listed) = mpsc::channel(PAGE_KEYS as usize);
        tokio::spawn(async move {
            while let Some(next) = keys.next().await.transpose() {
                let failed = next.is_err();
                if sender.send(next).await.is_err() || failed {
                    return;
                }
            }
        });
        let mut reading = FuturesOrdered::new();
        let (mut window, mut largest) = (4, 1);
        let mut more = true;
        while more || !reading.is_empty() {
            tokio::select! {
                biased;
                Some((key, read)) = reading.next(), if !reading.is_empty() => {
                    let read: Result<Option<Entry>, Error> = read;
                    let entry = match read {
                        // Deleted since it was listed.
                        Ok(None) => {
                            *last = Some(key);
                            continue;
                        }
                        Ok(Some(entry)) => entry,
                        Err(error) => return Ended::Failed(format!("'{key}': {error}")),
                    };
                    let size: usize = entry.values.iter().map(|v| v.value.data.len()).sum();
                    largest = size.max(largest - largest / 64).max(1);
                    window = (BYTES_IN_FLIGHT_MAX / largest).clamp(2, IN_FLIGHT_MAX).min(window + 1);
                    if writer.write(entry.to_line()).await.is_err() {
                        return Ended::Unheard;
                    }
                    *last = Some(key);
                    counts.keys += 1;
                    counts.siblings += u64::from(entry.values.len() > 1);
                    counts.bytes += size as u64;
                    progress.advance(size as u64);
                }
                next = listed.recv(), if more && reading.len() < window => match next {
                    Some(Ok(key)) => {
                        let read = fetch(client.clone(), bucket.to_owned(), key, self.read, self.timeout);
                        reading.push_back(read);
                    }
                    None => more = false,
                    Some(Err(error)) => return Ended::Failed(format!("the listing of '{bucket}': {error}")),
                },
                () = progress.due() => progress.tell(),
            }
        }
        Ended::Whole
    }

    fn how_to_resume(&self, last: Option<&str>) -> String {
        match (&self.file, last) {
            (Some(_), _) => {
                "the file is whole as far as it goes: the same command with --resume goes on"
                    .to_owned()
            }
            (None, Some(last)) if self.buckets.len() == 1 => {
                format!("to go on where it broke off: --after '{last}'")
            }
            (None, _) => "export again, to a file: then --resume can go on".to_owned(),
        }
    }
}

/// Reads one key with patience.
async fn fetch(
    client: Client,
    bucket: String,
    key: String,
    read: ReadArgs,
    TimeoutArgs { timeout }: TimeoutArgs,
) -> (String, Result<Option<Entry>, Error>) {
    let mut patience = Patience::new();
    let options = read.into_options(Options::default());
    let held = loop {
        let get = client.get(&bucket, &key).options(options).timeout(timeout);
        match get.await {
            Ok(held) => break Ok(held),
            Err(error) if patience.allows(&error).await => {}
            Err(error) => break Err(error),
        }
    };
    let entry = held.map(|held| {
        held.map(|held| Entry {
            bucket,
            key: key.clone(),
            values: held.siblings.into_iter().map(Kept::from).collect(),
        })
    });
    (key, entry)
}

/// A new file. One that is there may be an export that somebody still wants.
fn create(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(format!(
            "{} is there already: --resume goes on with it, or remove it",
            path.display()
        )),
        _ => Failure::io(format!("create {}", path.display()), &error),
    })
}

/// The file of an export that was interrupted, cut after its last whole line, and what that is about.
fn reopen(path: &Path) -> Result<(File, Option<(String, String)>), Failure> {
    let failed = |error: io::Error| Failure::io(format!("go on with {}", path.display()), &error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed)?;
    let start = start_of_last_line(&mut file).map_err(failed)?;
    let Some((start, end)) = start else {
        // An export that got no further than its first line, and not something else that somebody needs.
        const BEGINNING: &[u8] = b"{\"bucket\":";
        let mut found = vec![0; BEGINNING.len()];
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let length = file.read(&mut found).map_err(failed)?;
        if found[..length] != BEGINNING[..length] {
            return Err(Failure::new(format!(
                "{} is none of an export: name the file to go on with, or a new one",
                path.display()
            )));
        }
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        return Ok((file, None));
    };
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut line = Vec::new();
    BufReader::new(&file)
        .read_until(b'\n', &mut line)
        .map_err(failed)?;
    let entry = Entry::parse(&line, None).map_err(|why| {
        Failure::new(format!(
            "the last line of {} is none of an export: {why}",
            path.display()
        ))
    })?;
    file.set_len(end).map_err(failed)?;
    file.seek(SeekFrom::Start(end)).map_err(failed)?;
    Ok((file, Some((entry.bucket, entry.key))))
}

/// Where the last whole line begins and ends, looking from the end of the file.
fn start_of_last_line(file: &mut File) -> io::Result<Option<(u64, u64)>> {
    const STEP: u64 = 64 * 1024;
    let mut at = file.seek(SeekFrom::End(0))?;
    let mut end = None;
    let mut buffer = Vec::new();
    while at > 0 {
        let from = at.saturating_sub(STEP);
        buffer.resize((at - from) as usize, 0);
        file.seek(SeekFrom::Start(from))?;
        io::Read::read_exact(file, &mut buffer)?;
        for (offset, _) in buffer
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, b)| **b == b'\n')
        {
            let after = from + offset as u64 + 1;
            match end {
                None => end = Some(after),
                Some(end) => return Ok(Some((after, end))),
            }
        }
        at = from;
    }
    Ok(end.map(|end| (0, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_goes_on_after_its_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export");
        let line = |key: &str, size: usize| {
            format!(
                "{{\"bucket\":\"b\",\"key\":\"{key}\",\"value\":\"{}\"}}\n",
                "v".repeat(size)
            )
        };
        let whole = line("a", 1) + &line("c", 200_000);
        for (text, last, left) in [
            (String::new(), None, 0),
            ("{\"bucket\":".to_owned(), None, 0),
            (line("a", 1), Some("a"), line("a", 1).len()),
            (whole.clone(), Some("c"), whole.len()),
            (
                whole.clone() + &line("d", 100_000)[..99_000],
                Some("c"),
                whole.len(),
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let (mut file, found) = reopen(&path).unwrap();
            assert_eq!(found, last.map(|key| ("b".to_owned(), key.to_owned())));
            file.write_all(b"next\n").unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, left + 5);
        }
        assert!(create(&path).is_err(), "it is there");
        std::fs::write(&path, "not ours\n").unwrap();
        assert!(reopen(&path).is_err());
        assert_eq!(
            std::fs::read(&path).unwrap(),
            b"not ours\n",
            "nothing changed"
        );
    }
}
