//! The keys, and how each is read from the text that a file, a variable or a flag gives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reserve::{self, DiskReserve};
use super::{ConfigError, Durability, LogFormat, NodeConfig, Origin, size};

/// A key of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Its name in the file, and of the flag with `-` for `_`.
    pub name: &'static str,
    /// The environment variable that says the same.
    pub variable: &'static str,
    /// Its value where none is given; `None` if it must be.
    pub default: Option<&'static str>,
    /// What it says.
    pub meaning: &'static str,
}

const fn key(
    name: &'static str,
    variable: &'static str,
    default: Option<&'static str>,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        variable,
        default,
        meaning,
    }
}

/// Every key. This table is what `--help` and the documentation list.
pub const KEYS: [Key; 27] = [
    key(
        "name",
        "QUORATE_NAME",
        None,
        "which node of the layout this is, such as \"node-1\"",
    ),
    key(
        "data_dir",
        "QUORATE_DATA_DIR",
        None,
        "the directory of this node's data, made at the first start",
    ),
    key(
        "quic_listen",
        "QUORATE_QUIC_LISTEN",
        None,
        "the UDP address for nodes and clients, such as \"0.0.0.0:7401\"",
    ),
    key(
        "http_listen",
        "QUORATE_HTTP_LISTEN",
        None,
        "the TCP address for HTTP, such as \"127.0.0.1:7401\"",
    ),
    key(
        "layout",
        "QUORATE_LAYOUT",
        None,
        "the file of the cluster's layout, as init wrote it",
    ),
    key(
        "node",
        "QUORATE_NODE",
        Some("none"),
        "the file that says who this node is, as `quorate admit` writes it, for one that the layout does not name",
    ),
    key(
        "secret",
        "QUORATE_SECRET",
        None,
        "the file of the cluster's context secret, the same on all nodes",
    ),
    key(
        "ca",
        "QUORATE_CA",
        None,
        "the file of the cluster's CA certificate",
    ),
    key(
        "certificate",
        "QUORATE_CERTIFICATE",
        None,
        "the file of this node's certificate",
    ),
    key(
        "key",
        "QUORATE_KEY",
        None,
        "the file of the certificate's private key",
    ),
    key(
        "durability",
        "QUORATE_DURABILITY",
        Some("fsync"),
        "\"fsync\": a write is acknowledged when the disk has it; \"os\": when the operating system has it",
    ),
    key(
        "value_bytes_max",
        "QUORATE_VALUE_BYTES_MAX",
        Some("8 MiB"),
        "the largest value; the same on all nodes",
    ),
    key(
        "siblings_max",
        "QUORATE_SIBLINGS_MAX",
        Some("64"),
        "the most siblings a put may leave; the same on all nodes",
    ),
    key(
        "block_cache_bytes",
        "QUORATE_BLOCK_CACHE_BYTES",
        Some("64 MiB"),
        "memory for blocks read from disk",
    ),
    key(
        "requests_max",
        "QUORATE_REQUESTS_MAX",
        Some("16384"),
        "the most requests this node coordinates at one time; more are refused",
    ),
    key(
        "hint_bytes_max",
        "QUORATE_HINT_BYTES_MAX",
        Some("256 MiB"),
        "the most bytes of hints this node keeps for one other that is out of reach; more are refused",
    ),
    key(
        "handoff_bytes_per_second",
        "QUORATE_HANDOFF_BYTES_PER_SECOND",
        Some("10 MiB"),
        "how many bytes of hints this node hands over in a second, to all others together",
    ),
    key(
        "hedge_percent",
        "QUORATE_HEDGE_PERCENT",
        Some("10"),
        "how many of a hundred reads may ask one more node where one is overdue; 0: none",
    ),
    key(
        "repair_bytes_per_second",
        "QUORATE_REPAIR_BYTES_PER_SECOND",
        Some("10 MiB"),
        "how many bytes this node sends in a second to replicas that its reads find stale",
    ),
    key(
        "exchange_cycle",
        "QUORATE_EXCHANGE_CYCLE",
        Some("30s"),
        "in what time this node compares all that it holds with every other replica of it",
    ),
    key(
        "verify_cycle",
        "QUORATE_VERIFY_CYCLE",
        Some("6h"),
        "in what time this node reads all its records and checks that they are what they were written as",
    ),
    key(
        "collect_after",
        "QUORATE_COLLECT_AFTER",
        Some("1s"),
        "how long what is left of removed values waits before all replicas are asked to forget it",
    ),
    key(
        "collect_keys_per_second",
        "QUORATE_COLLECT_KEYS_PER_SECOND",
        Some("4096"),
        "of how many keys in a second this node has such remains forgotten; while requests come, of an eighth",
    ),
    key(
        "fill_bytes_per_second",
        "QUORATE_FILL_BYTES_PER_SECOND",
        Some("20 MiB"),
        "while the layout changes: how many bytes this node takes and gives in a second to be filled with what it is to hold",
    ),
    key(
        "disk_reserve",
        "QUORATE_DISK_RESERVE",
        Some("auto"),
        "what must stay free on the disk, as \"2 GiB\" or \"5%\": below it values are refused; auto: 5%, from 1 to 16 GiB; 0: off",
    ),
    key(
        "slow_request",
        "QUORATE_SLOW_REQUEST",
        Some("500ms"),
        "requests that take longer are logged; 0: none",
    ),
    key(
        "log_format",
        "QUORATE_LOG_FORMAT",
        Some("text"),
        "\"text\" for people or \"json\", a document a line, for programs",
    ),
];

/// The largest value that may be configured: several of them must fit into a connection's queue.
const VALUE_BYTES_CEILING: usize = 64 << 20;

/// How often what a node does by itself may be done.
const PACE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(365 * 24 * 3600);

/// What the names of our variables begin with.
const PREFIX: &str = "QUORATE_";

/// A value and where it came from.
#[derive(Clone, Debug)]
struct Given {
    text: String,
    origin: Origin,
    /// What the user wrote it as: the key, or the variable.
    named: String,
}

impl Given {
    fn wrong(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            origin: self.origin.clone(),
            key: self.named.clone(),
            value: self.text.clone(),
            reason: reason.into(),
        }
    }
}

pub(super) fn load(
    path: &Path,
    env: impl IntoIterator<Item = (String, String)>,
    overrides: BTreeMap<String, String>,
) -> Result<NodeConfig, ConfigError> {
    let mut given = from_file(path)?;
    for (variable, text) in env {
        let Some(key) = of_variable(&variable)? else {
            continue;
        };
        let (origin, named) = (Origin::Environment, variable);
        given.insert(
            key.name,
            Given {
                text,
                origin,
                named,
            },
        );
    }
    for (name, text) in overrides {
        let key = find(&name, Origin::Flag)?;
        let (origin, named) = (Origin::Flag, name);
        given.insert(
            key.name,
            Given {
                text,
                origin,
                named,
            },
        );
    }
    let values = Values { path, given };
    Ok(NodeConfig {
        file: path.to_owned(),
        name: values.text("name")?.text,
        data_dir: values.path("data_dir")?,
        quic_listen: values.address("quic_listen")?,
        http_listen: values.address("http_listen")?,
        durability: values.durability()?,
        layout: values.path("layout")?,
        node: values.path_or_none("node")?,
        secret: values.path("secret")?,
        ca: values.path("ca")?,
        certificate: values.path("certificate")?,
        key: values.path("key")?,
        value_bytes_max: values.size("value_bytes_max", 1, VALUE_BYTES_CEILING)?,
        siblings_max: values.size("siblings_max", 1, 1024)?,
        block_cache_bytes: values.size("block_cache_bytes", 0, usize::MAX)?,
        requests_max: values.size("requests_max", 1, 1 << 20)?,
        hint_bytes_max: values.size("hint_bytes_max", 0, usize::MAX)?,
        handoff_bytes_per_second: values.size("handoff_bytes_per_second", 1, usize::MAX)?,
        hedge_percent: values.size("hedge_percent", 0, 100)?,
        repair_bytes_per_second: values.size("repair_bytes_per_second", 1, usize::MAX)?,
        exchange_cycle: values.pace("exchange_cycle")?,
        verify_cycle: values.pace("verify_cycle")?,
        collect_after: values.pace("collect_after")?,
        collect_keys_per_second: values.size("collect_keys_per_second", 1, 1 << 30)?,
        fill_bytes_per_second: values.size("fill_bytes_per_second", 1, usize::MAX)?,
        disk_reserve: values.disk_reserve()?,
        slow_request: values.duration("slow_request")?,
        log_format: values.log_format()?,
    })
}

/// The key that a variable of the environment gives; `None` for one that is not for this configuration.
fn of_variable(variable: &str) -> Result<Option<&'static Key>, ConfigError> {
    let Some(name) = variable.strip_prefix(PREFIX) else {
        return Ok(None);
    };
    if let Some(key) = KEYS.iter().find(|key| key.variable == variable) {
        return Ok(Some(key));
    }
    let of_others = ["CONFIG", "ENDPOINT", "LOG"].contains(&name)
        || name.starts_with("SIM_")
        || name.starts_with("FAULTS_")
        || name.starts_with("UPDATE_");
    // Kubernetes sets these for every service whose name begins with quorate.
    let of_service = name == "PORT"
        || name.starts_with("PORT_")
        || name.starts_with("SERVICE_")
        || name.contains("_SERVICE_")
        || name.contains("_PORT_")
        || name.ends_with("_PORT");
    if of_others || of_service {
        return Ok(None);
    }
    Err(ConfigError::UnknownKey {
        origin: Origin::Environment,
        key: variable.to_owned(),
        nearest: nearest(&name.to_lowercase()).map(|key| key.variable.to_owned()),
    })
}

fn find(name: &str, origin: Origin) -> Result<&'static Key, ConfigError> {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Ok(key);
    }
    Err(ConfigError::UnknownKey {
        origin,
        key: name.to_owned(),
        nearest: nearest(name).map(|key| key.name.to_owned()),
    })
}

/// The key that somebody may have meant.
fn nearest(name: &str) -> Option<&'static Key> {
    let likeness = |key: &&Key| (strsim::jaro_winkler(key.name, name) * 1000.0) as u32;
    KEYS.iter()
        .max_by_key(likeness)
        .filter(|key| likeness(key) >= 700)
}

fn from_file(path: &Path) -> Result<BTreeMap<&'static str, Given>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        what: "the configuration",
        path: path.to_owned(),
        source,
        mend: "`quorate init DIR` makes a cluster with a configuration for each node".into(),
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let origin = Origin::File(path.to_owned());
    let mut given = BTreeMap::new();
    for (name, value) in table {
        let key = find(&name, origin.clone())?;
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            other => {
                let wrong = Given {
                    text: other.to_string(),
                    origin,
                    named: name,
                };
                return Err(wrong.wrong("a text or a whole number is expected"));
            }
        };
        let origin = origin.clone();
        given.insert(
            key.name,
            Given {
                text,
                origin,
                named: name,
            },
        );
    }
    Ok(given)
}

/// The values of all sources, the later over the earlier.
struct Values<'a> {
    path: &'a Path,
    given: BTreeMap<&'static str, Given>,
}

impl Values<'_> {
    fn text(&self, name: &'static str) -> Result<Given, ConfigError> {
        let key = KEYS
            .iter()
            .find(|key| key.name == name)
            .expect("a key of the table");
        if let Some(given) = self.given.get(name) {
            if given.text.is_empty() {
                return Err(given.wrong(format!("it must not be empty: {}", key.meaning)));
            }
            return Ok(given.clone());
        }
        let missing = || ConfigError::Missing {
            path: self.path.to_owned(),
            key: key.name,
            meaning: key.meaning,
        };
        Ok(Given {
            text: key.default.ok_or_else(missing)?.to_owned(),
            origin: Origin::File(self.path.to_owned()),
            named: name.to_owned(),
        })
    }

    fn path(&self, name: &'static str) -> Result<PathBuf, ConfigError> {
        let given = self.text(name)?;
        Ok(match &given.origin {
            Origin::File(file) => file.parent().unwrap_or(Path::new("")).join(given.text),
            _ => given.text.into(),
        })
    }

    fn path_or_none(&self, name: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        match self.text(name)?.text.as_str() {
            "none" => Ok(None),
            _ => self.path(name).map(Some),
        }
    }

    fn address(&self, name: &'static str) -> Result<SocketAddr, ConfigError> {
        let given = self.text(name)?;
        given.text.parse().map_err(|_| {
            given.wrong(
                "write an IP address and a port, such as 127.0.0.1:7401, 0.0.0.0:7401 or [::]:7401",
            )
        })
    }

    fn durability(&self) -> Result<Durability, ConfigError> {
        let given = self.text("durability")?;
        match given.text.as_str() {
            "fsync" => Ok(Durability::Fsync),
            "os" => Ok(Durability::Os),
            _ => Err(given.wrong(
                "write \"fsync\" (a write is acknowledged when the disk has it) or \"os\" (when the operating system \
                 has it: it survives the process, not the power)",
            )),
        }
    }

    fn disk_reserve(&self) -> Result<DiskReserve, ConfigError> {
        let given = self.text("disk_reserve")?;
        reserve::parse(&given.text).map_err(|reason| given.wrong(reason))
    }

    /// A duration, of which nothing at all is `None`.
    fn duration(&self, name: &'static str) -> Result<Option<Duration>, ConfigError> {
        let given = self.text(name)?;
        if given.text == "0" {
            return Ok(None);
        }
        match humantime::parse_duration(&given.text) {
            Ok(duration) => Ok((!duration.is_zero()).then_some(duration)),
            Err(_) => Err(given.wrong("write a duration, such as 250ms, 2s or 1h30m; or 0")),
        }
    }

    /// A duration by which something is done again and again: not 0, and not so long that it is never done.
    fn pace(&self, name: &'static str) -> Result<Duration, ConfigError> {
        match self.duration(name)? {
            Some(pace) if PACE.contains(&pace) => Ok(pace),
            _ => Err(self
                .text(name)?
                .wrong("it must be from 10ms to 1 year; it cannot be turned off")),
        }
    }

    fn log_format(&self) -> Result<LogFormat, ConfigError> {
        let given = self.text("log_format")?;
        given
            .text
            .parse()
            .map_err(|reason: String| given.wrong(reason))
    }

    fn size(&self, name: &'static str, min: usize, max: usize) -> Result<usize, ConfigError> {
        let given = self.text(name)?;
        let size = size::parse(&given.text).map_err(|reason| given.wrong(reason))?;
        if size < min || size > max {
            return Err(given.wrong(format!("it must be from {min} to {max}")));
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::{SIBLINGS_MAX, VALUE_BYTES_MAX};

    use super::*;

    #[test]
    fn the_table_agrees_with_the_protocol_and_with_itself() {
        let default = |name| {
            let key = KEYS.iter().find(|key| key.name == name).unwrap();
            size::parse(key.default.unwrap()).unwrap()
        };
        assert_eq!(default("value_bytes_max"), VALUE_BYTES_MAX);
        assert_eq!(default("siblings_max"), SIBLINGS_MAX);
        let limits = quorate_node::Limits::default();
        assert_eq!(default("hint_bytes_max") as u64, limits.hint_bytes_max);
        let rate = default("handoff_bytes_per_second") as u64;
        assert_eq!(rate, limits.handoff_bytes_per_second);
        assert_eq!(default("hedge_percent") as u32, limits.hedge_percent);
        let rate = default("repair_bytes_per_second") as u64;
        assert_eq!(rate, limits.repair_bytes_per_second);
        let rate = default("fill_bytes_per_second") as u64;
        assert_eq!(rate, limits.fill_bytes_per_second);
        let rate = default("collect_keys_per_second") as u64;
        assert_eq!(rate, limits.collect_keys_per_second);
        for (name, pace) in [
            ("exchange_cycle", limits.exchange_cycle),
            ("verify_cycle", limits.verify_cycle),
            ("collect_after", limits.collect_after),
        ] {
            let key = KEYS.iter().find(|key| key.name == name).unwrap();
            let default = humantime::parse_duration(key.default.unwrap()).unwrap();
            assert_eq!(default, pace, "{name}");
        }
        for key in KEYS {
            assert_eq!(key.variable, format!("QUORATE_{}", key.name.to_uppercase()));
        }
    }
}
