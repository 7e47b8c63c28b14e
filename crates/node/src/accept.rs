//! What a request must be before anything is done about it.

use std::time::Duration;

use quorate_causal::Context;
use quorate_protocol::{
    BUCKET_BYTES_MAX, Header, KEY_BYTES_MAX, LIST_KEYS_MAX, List, Options, Quorum, Refusal, Value,
};
use quorate_ring::Partition;

use crate::config::{BucketDefaults, Config, Limits};
use crate::placement::Placement;
use crate::read::ReadTerms;
use crate::tally::{Requirement, Seat};
use crate::target::Target;
use crate::write::WriteTerms;

/// Checks the name of a bucket.
pub(crate) fn bucket_name(bucket: &str) -> Result<(), Refusal> {
    if bucket.is_empty() {
        return Err(Refusal::Malformed("the bucket's name is empty".to_owned()));
    }
    if bucket.len() > BUCKET_BYTES_MAX {
        return Err(Refusal::Impossible(format!(
            "the bucket's name has {} bytes, and the limit is {BUCKET_BYTES_MAX}",
            bucket.len()
        )));
    }
    Ok(())
}

/// Checks the names of a bucket and a key.
pub(crate) fn names(bucket: &str, key: &str) -> Result<(), Refusal> {
    bucket_name(bucket)?;
    if key.is_empty() {
        return Err(Refusal::Malformed(
            "the key is empty: a key has 1 to 1,024 bytes".to_owned(),
        ));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(Refusal::Impossible(format!(
            "the key has {} bytes, and the limit is {KEY_BYTES_MAX}",
            key.len()
        )));
    }
    Ok(())
}

/// Checks what is to be listed.
pub(crate) fn list(list: &List) -> Result<(), Refusal> {
    bucket_name(&list.bucket)?;
    if list.limit == 0 || list.limit > LIST_KEYS_MAX {
        return Err(Refusal::Impossible(format!(
            "limit={} is no page: it is from 1 to {LIST_KEYS_MAX}",
            list.limit
        )));
    }
    let after = list.after.as_deref().unwrap_or_default();
    for (name, text) in [("prefix", list.prefix.as_str()), ("after", after)] {
        if text.len() > KEY_BYTES_MAX {
            return Err(Refusal::Impossible(format!(
                "{name} has {} bytes, and no key has more than {KEY_BYTES_MAX}",
                text.len()
            )));
        }
    }
    Ok(())
}

/// Checks a value's size.
pub(crate) fn value(value: &Value, limits: &Limits) -> Result<(), Refusal> {
    if value.data.len() > limits.value_bytes_max {
        return Err(Refusal::TooLarge {
            size: value.data.len() as u64,
            limit: limits.value_bytes_max as u64,
        });
    }
    let meta: usize = value.meta.iter().map(|(k, v)| k.len() + v.len()).sum();
    let meta = meta + value.content_type.as_ref().map_or(0, String::len);
    if meta > limits.meta_bytes_max {
        return Err(Refusal::TooLarge {
            size: meta as u64,
            limit: limits.meta_bytes_max as u64,
        });
    }
    Ok(())
}

/// Reads the context a client sent for this key.
pub(crate) fn context(
    config: &Config,
    target: &Target,
    sealed: Option<&[u8]>,
) -> Result<Context, Refusal> {
    match sealed {
        None => Ok(Context::default()),
        Some(sealed) => config
            .secret
            .open(target.id.0, target.key.as_bytes(), sealed)
            .map_err(|e| Refusal::BadContext(e.to_string())),
    }
}

/// The time a request has.
pub(crate) fn timeout(header: &Header, limits: &Limits) -> Result<Duration, Refusal> {
    match header.deadline_ms {
        0 => Ok(limits.timeout),
        ms => {
            let asked = Duration::from_millis(u64::from(ms));
            if asked > limits.timeout_max {
                return Err(Refusal::Malformed(format!(
                    "timeout={}s is longer than the limit of {}s",
                    asked.as_secs(),
                    limits.timeout_max.as_secs()
                )));
            }
            Ok(asked)
        }
    }
}

/// Works out what a request asks of its replicas.
pub(crate) struct Terms<'a> {
    pub(crate) placement: &'a Placement,
    pub(crate) partition: Partition,
    pub(crate) defaults: &'a BucketDefaults,
    pub(crate) options: &'a Options,
}

impl Terms<'_> {
    /// What one of the parameters asks of these replicas.
    fn one(
        &self,
        seats: &[Seat],
        name: &str,
        (asked, default): (Option<Quorum>, Quorum),
        may_be_zero: bool,
    ) -> Result<Requirement, Refusal> {
        let quorum = quorum(seats, asked, default);
        Requirement::new(name, quorum, seats, self.placement.region(), may_be_zero)
    }

    /// Of those by which reads are answered.
    fn reading(
        &self,
        name: &str,
        asked: (Option<Quorum>, Quorum),
        may_be_zero: bool,
    ) -> Result<Requirement, Refusal> {
        let seats = self.placement.read_by(self.partition);
        self.one(seats, name, asked, may_be_zero)
    }

    /// Of those of every live layout.
    fn writing(
        &self,
        name: &str,
        asked: (Option<Quorum>, Quorum),
        may_be_zero: bool,
    ) -> Result<Requirement, Refusal> {
        let mut all = Requirement::default();
        for seats in self.placement.writers(self.partition) {
            all = all.and(self.one(seats, name, asked, may_be_zero)?);
        }
        Ok(all)
    }

    /// What is needed in words, for an account: `w=2 of 3`. What can never be met is left out: it is refused.
    pub(crate) fn words(&self, reads: bool, writes: bool) -> Vec<String> {
        let (options, defaults) = (self.options, self.defaults);
        let all = [
            (reads, false, "r", options.r, defaults.r),
            (reads, false, "pr", options.pr, defaults.pr),
            (writes, true, "w", options.w, defaults.w),
            (writes, true, "pw", options.pw, defaults.pw),
            (writes, true, "dw", options.dw, defaults.dw),
        ];
        let asked = all.into_iter().filter(|(applies, ..)| *applies);
        asked
            .filter_map(|(_, writes, name, asked, default)| {
                let needed = match writes {
                    true => self.writing(name, (asked, default), true).ok()?,
                    false => self.reading(name, (asked, default), true).ok()?,
                };
                let seats = self.placement.read_by(self.partition);
                needed.words(name, quorum(seats, asked, default))
            })
            .collect()
    }

    /// What a read asks of its replicas.
    pub(crate) fn read(&self) -> Result<ReadTerms, Refusal> {
        Ok(ReadTerms {
            r: self.reading("r", (self.options.r, self.defaults.r), false)?,
            pr: self.reading("pr", (self.options.pr, self.defaults.pr), true)?,
            sloppy: self.sloppy(),
            options: *self.options,
            primaries_only: false,
        })
    }

    /// What a read asks that only primaries answer.
    pub(crate) fn strict_read(&self) -> Result<Requirement, Refusal> {
        self.read().map(|terms| terms.r.and(terms.pr))
    }

    fn sloppy(&self) -> bool {
        self.options.sloppy.unwrap_or(self.defaults.sloppy)
    }

    pub(crate) fn write(&self) -> Result<WriteTerms, Refusal> {
        let w = self.writing("w", (self.options.w, self.defaults.w), false)?;
        let pw = self.writing("pw", (self.options.pw, self.defaults.pw), true)?;
        let synced = self.writing("dw", (self.options.dw, self.defaults.dw), true)?;
        Ok(WriteTerms {
            taken: w,
            primary: pw,
            sloppy: self.sloppy(),
            durable: synced.needed() > 0,
            synced,
            return_body: self.options.return_body,
            options: *self.options,
        })
    }
}

/// What is asked of so many replicas, or what holds where nothing is.
fn quorum(seats: &[Seat], asked: Option<Quorum>, default: Quorum) -> Quorum {
    // A default that this key's replicas are too few for asks for all of them: a cluster of two takes requests.
    match (asked, default) {
        (Some(asked), _) => asked,
        (None, Quorum::Count(count)) => Quorum::Count(count.min(seats.len() as u8)),
        (None, default) => default,
    }
}
