//! Making a cluster's files: CA, certificates, secret, layout, and a configuration for each node and for clients.
//!
//! ```text
//!   DIR/layout.json                    who is where; the same as every node's copy
//!   DIR/ca/ca.pem, ca.key              the authority; its key is needed only to admit nodes, and stays here
//!   DIR/node-1.toml                    the first node's configuration, and beside it all that it names:
//!   DIR/node-1/ca.pem, node.pem, node.key, secret, layout.json
//!   DIR/node-1/data/                   made by the node at its first start
//!   DIR/client.toml, client/ca.pem, client.pem, client.key
//! ```
//!
//! A node's `.toml` and directory are all that its host needs.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_ring::{ClusterId, Layout, LayoutError, LayoutSpec, NodeId, NodeSpec};
use quorate_transport::{Authority, AuthorityError, Identity};
use rand::RngCore;
use serde::Serialize;

/// How long certificates hold: as long as the CA. There is no renewal yet, and a cluster that stops talking to itself
/// one day is worse than a certificate that is valid for long.
pub(crate) const VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The client's name in the certificate that is made with the cluster.
const CLIENT_NAME: &str = "cli";

/// What cluster to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitOptions {
    /// How many nodes, at least 1. They are named `node-1` and so on.
    pub nodes: u16,
    /// The regions, dealt to the nodes in turn; empty for a single one named `local`.
    pub regions: Vec<String>,
    /// The host at which all nodes are reached, or one for each of them, in order; in no form that has a port.
    pub hosts: Vec<String>,
    /// Node I, from 1, listens on this port + I: UDP for QUIC and TCP for HTTP.
    pub base_port: u16,
}

impl Default for InitOptions {
    /// Three nodes in one region on this machine, from port 7401.
    fn default() -> Self {
        InitOptions {
            nodes: 3,
            regions: Vec::new(),
            hosts: vec!["127.0.0.1".into()],
            base_port: 7400,
        }
    }
}

/// One node of a cluster to be made. Each node is a zone of its own: where more fails together than a node, the layout
/// is edited before the first start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodePlan {
    /// Its name, which is also that of its files.
    pub name: String,
    /// The region it stands in.
    pub region: String,
    /// Where others reach it over QUIC, `host:port`.
    pub quic: String,
    /// Where it answers HTTP, `host:port`.
    pub http: String,
}

/// What was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct InitReport {
    /// The cluster's id, in hexadecimal.
    pub cluster: String,
    /// The configuration for clients.
    pub client: PathBuf,
    /// The nodes, in order.
    pub nodes: Vec<InitNode>,
}

/// One node that was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct InitNode {
    /// Its name.
    pub id: String,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where its data will be.
    pub data_dir: PathBuf,
    /// Where it is reached over QUIC, `host:port`.
    pub quic: String,
    /// Where it answers HTTP, `host:port`.
    pub http: String,
}

/// Why no cluster was made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one already.
    #[error("{} already holds a cluster ({} is there); nothing was changed: choose another directory, or start its nodes with `quorate server --config`", .dir.display(), .found)]
    Exists {
        /// The directory.
        dir: PathBuf,
        /// What says so.
        found: String,
    },
    /// The options make no cluster.
    #[error("{0}")]
    Options(String),
    /// The nodes make no layout.
    #[error("these nodes make no layout: {0}")]
    Layout(#[from] LayoutError),
    /// No certificate could be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InitError {
    let path = path.to_owned();
    move |source| InitError::Io {
        action,
        path,
        source,
    }
}

/// Makes a cluster's files in a directory, which may exist if no cluster is in it.
///
/// # Errors
///
/// [`InitError`]. Everything is made in a directory beside `dir` first and then moved, so nothing is changed on failure.
pub fn init(dir: &Path, options: &InitOptions) -> Result<InitReport, InitError> {
    init_at(dir, &plan(options)?)
}

/// The same for nodes at any addresses.
///
/// # Errors
///
/// As [`init()`].
pub fn init_at(dir: &Path, nodes: &[NodePlan]) -> Result<InitReport, InitError> {
    let dir = std::path::absolute(dir).map_err(io_error("use", dir))?;
    for (at, node) in nodes.iter().enumerate() {
        check_name(&node.name)?;
        if nodes[..at].iter().any(|n| n.name == node.name) {
            return Err(taken(&node.name));
        }
    }
    refuse_a_second(&dir, nodes)?;
    let parent = dir.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(io_error("make", parent))?;
    let making = tempfile::Builder::new()
        .prefix(".quorate-init-")
        .tempdir_in(parent)
        .map_err(io_error("make a directory in", parent))?;
    let cluster = make(making.path(), nodes)?;
    move_into(making.path(), &dir)?;
    Ok(InitReport {
        cluster: cluster.to_string(),
        client: dir.join("client.toml"),
        nodes: nodes
            .iter()
            .map(|node| InitNode {
                id: node.name.clone(),
                config: dir.join(format!("{}.toml", node.name)),
                data_dir: dir.join(&node.name).join("data"),
                quic: node.quic.clone(),
                http: node.http.clone(),
            })
            .collect(),
    })
}

fn plan(options: &InitOptions) -> Result<Vec<NodePlan>, InitError> {
    if options.nodes == 0 {
        return Err(InitError::Options(
            "0 nodes: a cluster has at least one".into(),
        ));
    }
    if options.base_port.checked_add(options.nodes).is_none() {
        return Err(InitError::Options(format!(
            "base port {} leaves no room for {} nodes: ports end at 65535",
            options.base_port, options.nodes
        )));
    }
    let hosts = &options.hosts;
    if hosts.len() != 1 && hosts.len() != usize::from(options.nodes) {
        return Err(InitError::Options(format!(
            "{} hosts for {} nodes: name one host for all of them, or one for each",
            hosts.len(),
            options.nodes
        )));
    }
    if let Some(host) = hosts.iter().find(|host| !is_host(host)) {
        return Err(InitError::Options(format!(
            "{host:?} is no host: write a name or an address, without a port (--base-port says from where those go on)"
        )));
    }
    Ok((1..=options.nodes)
        .map(|number| {
            let at = usize::from(number) - 1;
            let host = host_in_address(&hosts[at % hosts.len()]);
            let address = format!("{host}:{}", options.base_port + number);
            NodePlan {
                name: format!("node-{number}"),
                region: region_of(&options.regions, at),
                quic: address.clone(),
                http: address,
            }
        })
        .collect())
}

/// Whether a port may stand behind it: a name, or an address in its plain form.
fn is_host(host: &str) -> bool {
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    host.parse::<IpAddr>().is_ok() || (!host.is_empty() && host.chars().all(of_a_name))
}

/// A host as it stands in front of a port.
pub(crate) fn host_in_address(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    }
}

/// The region of the node at this position: they are dealt in turn.
pub(crate) fn region_of(regions: &[String], at: usize) -> String {
    match regions.len() {
        0 => "local".to_owned(),
        count => regions[at % count].clone(),
    }
}

/// Names become files, so they may not lead elsewhere, and may not be those of other files here.
pub(crate) fn check_name(name: &str) -> Result<(), InitError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(InitError::Options(format!(
            "{name:?} is no name for a node: use letters, digits, '-', '_' and '.'"
        )));
    }
    match matches!(name, "ca" | "client" | "layout") {
        true => Err(taken(name)),
        false => Ok(()),
    }
}

fn taken(name: &str) -> InitError {
    InitError::Options(format!("the name {name:?} is taken: choose another"))
}

fn refuse_a_second(dir: &Path, nodes: &[NodePlan]) -> Result<(), InitError> {
    let mut ours: BTreeSet<String> = ["layout.json", "ca", "client.toml", "client"]
        .map(String::from)
        .into();
    for node in nodes {
        ours.insert(node.name.clone());
        ours.insert(format!("{}.toml", node.name));
    }
    // In the order of what says most.
    let first = ["layout.json", "ca"].map(String::from);
    match first
        .iter()
        .chain(&ours)
        .find(|name| dir.join(name).symlink_metadata().is_ok())
    {
        Some(found) => Err(InitError::Exists {
            dir: dir.to_owned(),
            found: found.clone(),
        }),
        None => Ok(()),
    }
}

/// Makes everything in an empty directory.
fn make(dir: &Path, nodes: &[NodePlan]) -> Result<ClusterId, InitError> {
    let mut rng = rand::rng();
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    let cluster = ClusterId(u128::from_be_bytes(id));
    let mut secret = [0; 32];
    rng.fill_bytes(&mut secret);
    let secret = secret_file(&secret);

    let specs = nodes.iter().enumerate().map(|(at, node)| NodeSpec {
        id: NodeId(at as u64 + 1),
        name: node.name.clone(),
        region: node.region.clone(),
        zone: node.name.clone(),
        weight: 1,
        quic: node.quic.clone(),
        http: node.http.clone(),
    });
    let layout = Layout::first(cluster, LayoutSpec::new(specs.collect()))?;
    let json = serde_json::to_string(&layout).expect("a layout serialises");
    let json = format!("{json}\n");

    let authority = Authority::create(cluster.0)?;
    authority.save(&dir.join("ca"))?;
    for spec in layout.nodes() {
        let own = dir.join(&spec.name);
        make_dir(&own)?;
        write(&own.join("ca.pem"), authority.certificate_pem(), 0o644)?;
        write(&own.join("layout.json"), &json, 0o644)?;
        write(&own.join("secret"), &secret, 0o600)?;
        authority
            .issue(&Identity::Node(spec.id.0), VALIDITY)?
            .save(&own.join("node.pem"), &own.join("node.key"))?;
        write(
            &dir.join(format!("{}.toml", spec.name)),
            &node_toml(spec)?,
            0o644,
        )?;
    }
    let own = dir.join("client");
    make_dir(&own)?;
    write(&own.join("ca.pem"), authority.certificate_pem(), 0o644)?;
    authority
        .issue(&Identity::Client(CLIENT_NAME.into()), VALIDITY)?
        .save(&own.join("client.pem"), &own.join("client.key"))?;
    write(&dir.join("client.toml"), &client_toml(&layout), 0o644)?;
    write(&dir.join("layout.json"), &json, 0o644)?;
    Ok(cluster)
}

fn secret_file(secret: &[u8; 32]) -> String {
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "# The secret by which the nodes of this cluster recognise the contexts they gave out.\n\
         # The same on every node. Who reads it can forge contexts.\n{digits}\n"
    )
}

/// The address to listen on for one at which others reach the node: the same, or every one if that is a name.
fn listen(address: &str) -> Result<SocketAddr, InitError> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let port = address.rsplit_once(':').and_then(|(host, port)| {
        let port = port.parse().ok()?;
        (!host.is_empty()).then_some(port)
    });
    let port: u16 = port.ok_or_else(|| {
        InitError::Options(format!("\"{address}\" is not an address: write host:port"))
    })?;
    Ok(SocketAddr::from(([0, 0, 0, 0], port)))
}

pub(crate) fn node_toml(spec: &NodeSpec) -> Result<String, InitError> {
    let NodeSpec { name, .. } = spec;
    let quic = listen(&spec.quic)?;
    let http = listen(&spec.http)?;
    Ok(format!(
        r#"# {name} of a Quorate cluster. Relative paths are relative to this file; every key can also be given as an
# environment variable, such as QUORATE_DURABILITY. `quorate server --config FILE --check-config` explains.

name = "{name}"
data_dir = "{name}/data"
quic_listen = "{quic}"
http_listen = "{http}"

# "fsync": a write is acknowledged when the disk has it. "os": when the operating system has it.
durability = "fsync"

layout = "{name}/layout.json"
secret = "{name}/secret"
ca = "{name}/ca.pem"
certificate = "{name}/node.pem"
key = "{name}/node.key"
"#
    ))
}

fn client_toml(layout: &Layout) -> String {
    let endpoints: Vec<String> = layout
        .nodes()
        .iter()
        .map(|n| format!("{:?}", n.quic))
        .collect();
    format!(
        "# How clients find this cluster: `quorate get --config FILE ...`, or QUORATE_CONFIG=FILE.\n\n\
         endpoints = [{}]\nca = \"client/ca.pem\"\ncertificate = \"client/client.pem\"\nkey = \"client/client.key\"\n",
        endpoints.join(", ")
    )
}

pub(crate) fn make_dir(path: &Path) -> Result<(), InitError> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(io_error("make", path))
}

pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), InitError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    options
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(io_error("write", path))
}

/// Moves what was made into place. The layout goes last: with it, the directory holds a cluster.
fn move_into(made: &Path, dir: &Path) -> Result<(), InitError> {
    let fresh = !dir.exists();
    fs::create_dir_all(dir).map_err(io_error("make", dir))?;
    let mut names: Vec<_> = fs::read_dir(made)
        .and_then(|entries| {
            entries
                .map(|e| e.map(|e| e.file_name()))
                .collect::<Result<_, _>>()
        })
        .map_err(io_error("read", made))?;
    names.sort_by_key(|name| name == "layout.json");
    let mut moved: Vec<PathBuf> = Vec::new();
    for name in names {
        let to = dir.join(&name);
        if let Err(source) = fs::rename(made.join(&name), &to) {
            for path in moved {
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
            if fresh {
                let _ = fs::remove_dir(dir);
            }
            let action = "move files to";
            return Err(InitError::Io {
                action,
                path: to,
                source,
            });
        }
        moved.push(to);
    }
    // The names too must outlive a loss of power: a CA key is made once.
    fs::File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(io_error("sync", dir))
}
