//! `quorate import` of lines of JSON.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use quorate_client::{Client, Error};
use quorate_protocol::{Lifetime, Options, Refusal};
use serde_json::json;

use crate::checkpoint::Checkpoint;
use crate::cluster::Patience;
use crate::failure::Failure;
use crate::lines::{self, Broken, Line};
use crate::ndjson::{Entry, Kept, LINE_BYTES_MAX};
use crate::options::{ClusterArgs, TimeoutArgs};
use crate::output::{self, Form, human_bytes};
use crate::progress::Progress;
use crate::runtime;

/// Keys that are worked on at one time. Beyond some dozens, three nodes on one disk gain nothing.
const IN_FLIGHT_MAX: usize = 64;

/// Bytes of lines that are worked on at one time. A single longer one still passes, alone.
const BYTES_IN_FLIGHT_MAX: usize = 64 * 1024 * 1024;

/// How often it is noted how far the import has come.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// How many lines that are left out are told one by one.
const TOLD_MAX: u64 = 20;

/// How lines are taken.
#[derive(clap::Args)]
pub(crate) struct Lines {
    /// Store every line in this bucket, whichever it names
    #[arg(long)]
    bucket: Option<String>,

    /// Go on where an earlier import of this file was interrupted, as FILE.progress says
    #[arg(long)]
    resume: bool,

    /// Leave out lines that cannot be stored as they are, and tell of them, instead of ending at the first
    #[arg(long)]
    skip_bad: bool,
}

/// What was done, counted in keys.
#[derive(Default)]
struct Counts {
    stored: u64,
    unchanged: u64,
    /// All that the line had for it has expired.
    expired: u64,
    bad: u64,
    bytes: u64,
}

/// What came of one line.
enum Outcome {
    Stored,
    Unchanged,
    Expired,
    /// The line is at fault, and would be the next time.
    Bad(String),
    Failed(Error),
}

/// A line that is through.
struct Through {
    place: (String, String),
    number: u64,
    end: u64,
    size: usize,
    outcome: Outcome,
}

/// Imports a file, or standard input.
pub(crate) fn run(
    file: Option<PathBuf>,
    lines: Lines,
    options: Options,
    timeout: TimeoutArgs,
    cluster: &ClusterArgs,
    form: Form,
) -> Result<(), Failure> {
    let began = Instant::now();
    let (source, mut checkpoint, length) = open(file.as_deref(), lines.resume)?;
    let begun = checkpoint.as_ref().map_or((0, 0), Checkpoint::reached);
    let mut counts = Counts::default();
    let ended = runtime::block_on(async {
        let client = cluster.connect().await?;
        let mut progress = Progress::start("keys", None, length.map(|l| l - begun.0));
        let ended = store_all(
            &client,
            lines::read(source, begun, LINE_BYTES_MAX),
            &lines,
            options,
            timeout,
            &mut checkpoint,
            &mut progress,
            &mut counts,
        )
        .await;
        progress.finish();
        Ok(ended)
    })?;
    match (&ended, checkpoint) {
        (Ok(()), Some(checkpoint)) => checkpoint.remove()?,
        (Err(_), Some(mut checkpoint)) => checkpoint.note()?,
        (_, None) => {}
    }
    if let Err(why) = ended {
        let again = match file {
            Some(file) => format!(
                "what stands before it is stored; to go on there: quorate import --resume '{}'",
                file.display()
            ),
            None => {
                "what stands before it is stored; importing the same again changes nothing of that"
                    .to_owned()
            }
        };
        return Err(Failure::new(format!("{why}\n{again}")));
    }
    let seconds = began.elapsed().as_secs_f64();
    let Counts {
        stored,
        unchanged,
        expired,
        bad,
        bytes,
    } = counts;
    match form {
        Form::Json => output::json(&json!({
            "keys": stored + unchanged,
            "bytes": bytes,
            "stored": stored,
            "unchanged": unchanged,
            "expired": expired,
            "bad": bad,
            "seconds": seconds,
        })),
        Form::Table => output::line(&format!(
            "{} keys, {} in {seconds:.1} s: {stored} stored, {unchanged} unchanged, {expired} expired, {bad} left out",
            stored + unchanged,
            human_bytes(bytes),
        )),
    }
}

type Opened = (Box<dyn Read + Send>, Option<Checkpoint>, Option<u64>);

/// The source, from where it is to be read on.
fn open(file: Option<&Path>, resume: bool) -> Result<Opened, Failure> {
    let Some(path) = file else {
        if resume {
            return Err(Failure::Usage(
                "--resume is for a file: standard input cannot be read again from where it was"
                    .to_owned(),
            ));
        }
        let stdin = io::stdin();
        if stdin.is_terminal() {
            output::remark("reading lines from the terminal; Ctrl-D ends it");
        }
        return Ok((Box::new(stdin), None, None));
    };
    let failed = |error: io::Error| Failure::io(format!("read {}", path.display()), &error);
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::new(format!(
            "{path} is a directory: quorate import --dir {path} BUCKET stores its files",
            path = path.display()
        )));
    }
    if !metadata.is_file() {
        // A pipe cannot be read twice, and so not resumed.
        return Ok((Box::new(file), None, None));
    }
    let checkpoint = Checkpoint::of(path, &mut file, resume)?;
    let (offset, line) = checkpoint.reached();
    if resume {
        output::remark(&format!("going on after line {line}"));
    }
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    Ok((Box::new(file), Some(checkpoint), Some(metadata.len())))
}

#[expect(clippy::too_many_arguments, reason = "it is the whole of a run")]
async fn store_all(
    client: &Client,
    mut batches: tokio::sync::mpsc::Receiver<lines::Batch>,
    lines: &Lines,
    options: Options,
    timeout: TimeoutArgs,
    checkpoint: &mut Option<Checkpoint>,
    progress: &mut Progress,
    counts: &mut Counts,
) -> Result<(), String> {
    let mut waiting = Vec::<Line>::new().into_iter();
    let mut storing = FuturesOrdered::new();
    // What is being stored: two lines about one key must not meet, or both would stay.
    let mut busy: BTreeSet<(String, String)> = BTreeSet::new();
    let mut bytes = 0;
    let mut next: Option<(Line, Entry)> = None;
    let mut broken = None;
    let mut noted = Instant::now();
    let mut open = true;
    loop {
        // As many as may be under way.
        while broken.is_none() {
            if next.is_none() {
                let Some(line) = waiting.next() else {
                    break;
                };
                match Entry::parse(&line.text, lines.bucket.as_deref()) {
                    Ok(entry) => next = Some((line, entry)),
                    Err(why) if lines.skip_bad => left_out(counts, line.number, &why),
                    Err(why) => broken = Some(format!("line {}: {why}", line.number)),
                }
                continue;
            }
            let free = next.take_if(|(line, entry)| {
                let place = (entry.bucket.clone(), entry.key.clone());
                let fits = storing.is_empty() || bytes + line.text.len() <= BYTES_IN_FLIGHT_MAX;
                storing.len() < IN_FLIGHT_MAX && fits && busy.insert(place)
            });
            let Some((line, entry)) = free else {
                break;
            };
            bytes += line.text.len();
            storing.push_back(store(client.clone(), line, entry, options, timeout));
        }
        let wants_more = next.is_none() && broken.is_none() && open;
        if storing.is_empty() && !wants_more && next.is_none() {
            return broken.map_or(Ok(()), Err);
        }
        tokio::select! {
            batch = batches.recv(), if wants_more => match batch {
                Some(Ok(batch)) => waiting = batch.into_iter(),
                Some(Err(Broken::Unreadable(error))) => broken = Some(format!("cannot read on: {error}")),
                Some(Err(Broken::TooLong(number))) => broken = Some(format!(
                    "line {number} is longer than {LINE_BYTES_MAX} bytes, which is more than the largest values take: is it a \
                     file of lines?"
                )),
                None => open = false,
            },
            Some(through) = storing.next(), if !storing.is_empty() => {
                let Through { place, number, end, size, outcome } = through;
                busy.remove(&place);
                bytes -= size;
                match outcome {
                    Outcome::Stored => counts.stored += 1,
                    Outcome::Unchanged => counts.unchanged += 1,
                    Outcome::Expired => counts.expired += 1,
                    Outcome::Bad(why) if lines.skip_bad => left_out(counts, number, &why),
                    Outcome::Bad(why) => return Err(format!("line {number}, key '{}': {why}", place.1)),
                    Outcome::Failed(error) => return Err(format!("line {number}, key '{}': {error}", place.1)),
                }
                counts.bytes += size as u64;
                progress.advance(size as u64);
                if let Some(checkpoint) = checkpoint {
                    checkpoint.reach(end, number);
                    if noted.elapsed() >= NOTE_EVERY {
                        noted = Instant::now();
                        checkpoint.note().map_err(|failure| failure.to_string())?;
                    }
                }
            }
            () = progress.due() => progress.tell(),
        }
    }
}

fn left_out(counts: &mut Counts, number: u64, why: &str) {
    counts.bad += 1;
    if counts.bad <= TOLD_MAX {
        output::remark(&format!("left out line {number}: {why}"));
    } else if counts.bad == TOLD_MAX + 1 {
        output::remark("left out more lines, which are counted at the end");
    }
}

/// The time by this machine's clock, in milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Stores one line with patience. What of it has expired is passed over. It is read before each attempt, so that an attempt of unknown outcome may be repeated.
async fn store(
    client: Client,
    line: Line,
    mut entry: Entry,
    options: Options,
    timeout: TimeoutArgs,
) -> Through {
    let mut patience = Patience::new();
    let outcome = loop {
        let now = now_ms();
        let has_expired = |kept: &Kept| kept.expires_ms.is_some_and(|end| end <= now);
        entry.values.retain(|kept| !has_expired(kept));
        if entry.values.is_empty() {
            break Outcome::Expired;
        }
        match store_once(&client, &entry, options, timeout).await {
            Ok(true) => break Outcome::Stored,
            Ok(false) => break Outcome::Unchanged,
            Err(error) => match error.refusal() {
                // The line's own fault. Any other refusal is of what was asked for all of them.
                Some(
                    refusal @ (Refusal::TooLarge { .. }
                    | Refusal::TooManySiblings { .. }
                    | Refusal::SiblingsTooLarge { .. }),
                ) => break Outcome::Bad(refusal.to_string()),
                // By the cluster's clock it has expired, or its end is further off than it may be.
                Some(refusal @ Refusal::Impossible(_))
                    if entry.values.iter().any(|kept| kept.expires_ms.is_some()) =>
                {
                    break Outcome::Bad(refusal.to_string());
                }
                Some(refusal) if !refusal.is_passing() => break Outcome::Failed(error),
                _ if patience.allows(&error).await => {}
                _ => break Outcome::Failed(error),
            },
        }
    };
    Through {
        place: (entry.bucket, entry.key),
        number: line.number,
        end: line.end,
        size: line.text.len(),
        outcome,
    }
}

/// Whether it had to be stored: a key that holds just this already is left alone. Otherwise the first value replaces what was
/// read, and the others are put beside it, so that the key holds just these unless somebody else writes to it meanwhile.
async fn store_once(
    client: &Client,
    entry: &Entry,
    options: Options,
    TimeoutArgs { timeout }: TimeoutArgs,
) -> Result<bool, Error> {
    let Entry {
        bucket,
        key,
        values,
    } = entry;
    let held = client.get(bucket, key).timeout(timeout).await?;
    let is_held = held
        .as_ref()
        .is_some_and(|held| entry.is_held(held.siblings.iter().cloned().map(Kept::from)));
    if is_held {
        return Ok(false);
    }
    let mut context = held.map(|held| held.context);
    for Kept { value, expires_ms } in values {
        let mut put = client
            .put(bucket, key, value.data.clone())
            .options(options)
            .timeout(timeout)
            .lifetime(expires_ms.map(Lifetime::Until))
            .context(context.take());
        if let Some(content_type) = &value.content_type {
            put = put.content_type(content_type);
        }
        for (name, text) in &value.meta {
            put = put.meta(name, text);
        }
        put.await?;
    }
    Ok(true)
}
