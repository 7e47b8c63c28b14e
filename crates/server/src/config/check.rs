//! Whether what a configuration names can be used, and fits together.

use std::fmt;
use std::path::{Path, PathBuf};

use quorate_ring::{Layout, NodeId, NodeSpec};
use quorate_transport::{Credentials, Identity};

use super::{ConfigError, Durability, NodeConfig};

/// A configuration with everything that it names, read and checked. Its `Display` explains it in some lines.
#[derive(Clone)]
pub struct Checked {
    pub(crate) config: NodeConfig,
    /// The layout that it is first started with.
    pub(crate) layout: Layout,
    /// Who this node is.
    pub(crate) own: NodeSpec,
    /// The same as in the layout, or outside it so far.
    pub(crate) id: NodeId,
    pub(crate) secret: [u8; 32],
    pub(crate) credentials: Credentials,
}

pub(super) fn check(config: &NodeConfig) -> Result<Checked, ConfigError> {
    let unusable = |key: &'static str, path: &Path, reason: String| ConfigError::Unusable {
        key,
        config: config.file.clone(),
        path: path.to_owned(),
        reason,
    };
    let text = read(config, "layout", "the layout", &config.layout)?;
    let layout: Layout = serde_json::from_str(&text)
        .map_err(|error| unusable("layout", &config.layout, format!("not a layout: {error}")))?;
    let own = match layout.node_by_name(&config.name) {
        Some(node) => node.clone(),
        None => outside(config, &layout)?,
    };
    let id = own.id;

    let text = read(config, "secret", "the context secret", &config.secret)?;
    let secret = parse_secret(&text).map_err(|why| unusable("secret", &config.secret, why))?;

    let credentials = Credentials::load(&config.ca, &config.certificate, &config.key)?;
    let name = credentials.name();
    if name.cluster != layout.cluster().0 {
        let reason = format!(
            "it is of cluster {:032x}, and the layout {} is of cluster {}: use the certificate that was issued for \
             this cluster",
            name.cluster,
            config.layout.display(),
            layout.cluster()
        );
        return Err(unusable("certificate", &config.certificate, reason));
    }
    if name.identity != Identity::Node(id.0) {
        let reason = format!(
            "it was issued to {}, and '{}' is node {}: use the certificate of this node",
            name.identity, config.name, id.0
        );
        return Err(unusable("certificate", &config.certificate, reason));
    }
    Ok(Checked {
        config: config.clone(),
        own,
        id,
        layout,
        secret,
        credentials,
    })
}

/// Who a node is that the layout does not name.
fn outside(config: &NodeConfig, layout: &Layout) -> Result<NodeSpec, ConfigError> {
    let unusable = |key: &'static str, path: &Path, reason: String| ConfigError::Unusable {
        key,
        config: config.file.clone(),
        path: path.to_owned(),
        reason,
    };
    let Some(path) = &config.node else {
        let names: Vec<&str> = layout.nodes().iter().map(|n| n.name.as_str()).collect();
        let names = names.join(", ");
        let reason = format!(
            "it has no node named '{}' (it has {names}): correct `name`, name the layout of this node's cluster, or give \
             `node`, the file that `quorate admit` wrote for a node that is to join",
            config.name
        );
        return Err(unusable("layout", &config.layout, reason));
    };
    let text = read(config, "node", "who this node is", path)?;
    let own: NodeSpec = serde_json::from_str(&text)
        .map_err(|error| unusable("node", path, format!("not a node: {error}")))?;
    if own.name != config.name {
        let reason = format!(
            "it is of '{}', and `name` is '{}': name the file of this node",
            own.name, config.name
        );
        return Err(unusable("node", path, reason));
    }
    if let Some(other) = layout.node(own.id) {
        let reason = format!(
            "it says that '{}' is node {}, and that is '{}' in the layout: have another made with `quorate admit`",
            own.name, own.id.0, other.name
        );
        return Err(unusable("node", path, reason));
    }
    Ok(own)
}

fn read(
    config: &NodeConfig,
    key: &'static str,
    what: &'static str,
    path: &Path,
) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        what,
        path: PathBuf::from(path),
        source,
        mend: format!(
            "`quorate init` writes it; correct `{key}` in {} if it lies elsewhere",
            config.file.display()
        ),
    })
}

/// 32 bytes in hexadecimal; lines that begin with `#` are for people.
fn parse_secret(text: &str) -> Result<[u8; 32], String> {
    let wrong = "64 hexadecimal digits are expected: copy the file from a node of this cluster";
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    let digits = match (lines.next(), lines.next()) {
        (Some(line), None) if line.len() == 64 && line.is_ascii() => line,
        _ => return Err(wrong.to_owned()),
    };
    let mut secret = [0; 32];
    for (at, byte) in secret.iter_mut().enumerate() {
        *byte =
            u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| wrong.to_owned())?;
    }
    Ok(secret)
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked {
            config,
            layout,
            own: node,
            ..
        } = self;
        let durability = match config.durability {
            Durability::Fsync => "fsync: a write is acknowledged when the disk has it",
            Durability::Os => {
                "os: a write is acknowledged when the operating system has it; power loss may take it"
            }
        };
        writeln!(f, "{} is sound.", config.file.display())?;
        writeln!(
            f,
            "  node         {} (id {}) in region {}, zone {}",
            node.name, self.id.0, node.region, node.zone
        )?;
        writeln!(
            f,
            "  cluster      {}, layout version {}, {} nodes",
            layout.cluster(),
            layout.version(),
            layout.nodes().len()
        )?;
        writeln!(
            f,
            "  QUIC         listens on {} (UDP); others reach it at {}",
            config.quic_listen, node.quic
        )?;
        writeln!(f, "  HTTP         listens on {} (TCP)", config.http_listen)?;
        writeln!(f, "  data         {}", config.data_dir.display())?;
        writeln!(f, "  durability   {durability}")?;
        writeln!(
            f,
            "  disk         {}: below it values are refused, and reads and deletes go on",
            config.disk_reserve
        )?;
        writeln!(
            f,
            "  hints        {} bytes for each other node, handed over at {} bytes a second",
            config.hint_bytes_max, config.handoff_bytes_per_second
        )?;
        writeln!(
            f,
            "  reads        {} of 100 hedged at the most, repairs sent at {} bytes a second",
            config.hedge_percent, config.repair_bytes_per_second
        )?;
        writeln!(
            f,
            "  upkeep       exchanges with every replica in {}, all records checked in {}; remains of removed values of {} \
             keys a second collected after {}",
            humantime::format_duration(config.exchange_cycle),
            humantime::format_duration(config.verify_cycle),
            config.collect_keys_per_second,
            humantime::format_duration(config.collect_after)
        )?;
        write!(
            f,
            "  limits       values of {} bytes, {} siblings, {} requests",
            config.value_bytes_max, config.siblings_max, config.requests_max
        )
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret must not reach a log.
        f.debug_struct("Checked")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_32_bytes_and_comments() {
        let digits = "0f".repeat(32);
        assert_eq!(
            parse_secret(&format!("# keep it\n{digits}\n")),
            Ok([15; 32])
        );
        for wrong in [
            "",
            "0f",
            &digits[1..],
            &format!("{digits}{digits}"),
            &"zz".repeat(32),
            &"é".repeat(32),
        ] {
            assert!(parse_secret(wrong).is_err(), "{wrong}");
        }
    }
}
