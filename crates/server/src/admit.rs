//! Making the files of a node that is to join a cluster.
//!
//! They are like those of the nodes that the cluster was made with (see [`init()`](crate::init())), with one more: `NAME/node.json` says who the
//! node is, until a layout does. Ids are never given twice, for another node's data is known by them: `DIR/ca/last-node` has the last.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_ring::{Layout, NodeId, NodeSpec};
use quorate_transport::{Authority, Identity};
use serde::Serialize;

use crate::init::{
    InitError, VALIDITY, check_name, host_in_address, io_error, make_dir, node_toml, write,
};

const LAST_NODE: &str = "last-node";

/// What node to admit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AdmitOptions {
    /// Its name, also of its files; the next `node-I` that is free if `None`.
    pub name: Option<String>,
    /// Its region; that of the cluster's first node if `None`.
    pub region: Option<String>,
    /// What fails together; a zone of its own if `None`.
    pub zone: Option<String>,
    /// Its capacity relative to the others, at least 1.
    pub weight: u32,
    /// The host at which it is reached.
    pub host: String,
    /// Its port, UDP for QUIC and TCP for HTTP; the next after those of the nodes that are known here if `None`.
    pub port: Option<u16>,
}

/// What was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Admitted {
    /// Its name.
    pub id: String,
    /// Its configuration file.
    pub config: PathBuf,
    /// The file that says who it is.
    pub node: PathBuf,
    /// Where its data will be.
    pub data_dir: PathBuf,
    /// Where it is reached over QUIC, `host:port`.
    pub quic: String,
    /// Where it answers HTTP, `host:port`.
    pub http: String,
}

/// Makes the files of a node in the directory of its cluster, which has the CA's key.
///
/// # Errors
///
/// [`InitError`]; nothing is changed then, but for the number of the last node.
pub fn admit(dir: &Path, options: &AdmitOptions) -> Result<Admitted, InitError> {
    let dir = std::path::absolute(dir).map_err(io_error("use", dir))?;
    let layout_file = dir.join("layout.json");
    let json = fs::read_to_string(&layout_file).map_err(io_error("read", &layout_file))?;
    let layout: Layout = serde_json::from_str(&json).map_err(|error| {
        InitError::Options(format!("{}: not a layout: {error}", layout_file.display()))
    })?;
    let authority = Authority::load(&dir.join("ca"))?;
    let known = known_nodes(&dir, &layout)?;
    let spec = plan(&dir, options, &known)?;
    let secret = secret_of(&dir, &known)?;

    let making = tempfile::Builder::new()
        .prefix(".quorate-admit-")
        .tempdir_in(&dir)
        .map_err(io_error("make a directory in", &dir))?;
    let own = making.path().join(&spec.name);
    make_dir(&own)?;
    write(&own.join("ca.pem"), authority.certificate_pem(), 0o644)?;
    write(&own.join("layout.json"), &json, 0o644)?;
    write(&own.join("secret"), &secret, 0o600)?;
    let said = serde_json::to_string_pretty(&spec).expect("a node serialises");
    write(&own.join("node.json"), &format!("{said}\n"), 0o644)?;
    let number = format!("{}\n", spec.id.0);
    let last = dir.join("ca").join(LAST_NODE);
    fs::write(&last, number).map_err(io_error("write", &last))?;
    authority
        .issue(&Identity::Node(spec.id.0), VALIDITY)?
        .save(&own.join("node.pem"), &own.join("node.key"))?;
    let name = &spec.name;
    let toml = format!(
        "{}\n# Who this node is, until a layout says so.\nnode = \"{name}/node.json\"\n",
        node_toml(&spec)?
    );
    let config = format!("{name}.toml");
    write(&making.path().join(&config), &toml, 0o644)?;
    let (to, config) = (dir.join(name), dir.join(config));
    fs::rename(&own, &to).map_err(io_error("move files to", &to))?;
    let made = making.path().join(format!("{name}.toml"));
    if let Err(source) = fs::rename(made, &config) {
        let _ = fs::remove_dir_all(&to);
        return Err(io_error("move files to", &config)(source));
    }
    fs::File::open(&dir)
        .and_then(|d| d.sync_all())
        .map_err(io_error("sync", &dir))?;
    Ok(Admitted {
        node: to.join("node.json"),
        data_dir: to.join("data"),
        id: spec.name,
        config,
        quic: spec.quic,
        http: spec.http,
    })
}

/// The nodes that this directory knows: those of the first layout, and those that were admitted since.
fn known_nodes(dir: &Path, layout: &Layout) -> Result<Vec<NodeSpec>, InitError> {
    let mut known = layout.nodes().to_vec();
    for entry in fs::read_dir(dir).map_err(io_error("read", dir))? {
        let path = entry
            .map_err(io_error("read", dir))?
            .path()
            .join("node.json");
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let spec: NodeSpec = serde_json::from_str(&text).map_err(|error| {
            InitError::Options(format!(
                "{} does not say who a node is: {error}",
                path.display()
            ))
        })?;
        if !known.iter().any(|n| n.id == spec.id) {
            known.push(spec);
        }
    }
    Ok(known)
}

fn plan(dir: &Path, options: &AdmitOptions, known: &[NodeSpec]) -> Result<NodeSpec, InitError> {
    let last = fs::read_to_string(dir.join("ca").join(LAST_NODE)).unwrap_or_default();
    let last: u64 = last.trim().parse().unwrap_or(0);
    let greatest = known.iter().map(|n| n.id.0).max().unwrap_or(0).max(last);
    let id = NodeId(greatest + 1);
    let is_taken = |name: &str| {
        let exists = |file: &str| dir.join(file).symlink_metadata().is_ok();
        known.iter().any(|n| n.name == name) || exists(name) || exists(&format!("{name}.toml"))
    };
    let name = match &options.name {
        Some(name) => name.clone(),
        None => (id.0..)
            .map(|number| format!("node-{number}"))
            .find(|name| !is_taken(name))
            .expect("there is always another number"),
    };
    check_name(&name)?;
    if is_taken(&name) {
        return Err(InitError::Options(format!(
            "the name {name:?} is taken in {}: choose another",
            dir.display()
        )));
    }
    let port_of = |n: &NodeSpec| n.quic.rsplit_once(':').and_then(|(_, p)| p.parse().ok());
    let greatest: u16 = known.iter().filter_map(port_of).max().unwrap_or(7400);
    let port = match options.port {
        Some(port) => port,
        None => greatest.checked_add(1).ok_or_else(|| {
            InitError::Options("the nodes' ports end at 65535: say which, with --port".to_owned())
        })?,
    };
    let address = format!("{}:{port}", host_in_address(&options.host));
    let first = known.first();
    Ok(NodeSpec {
        id,
        region: options
            .region
            .clone()
            .or(first.map(|n| n.region.clone()))
            .unwrap_or_else(|| "local".to_owned()),
        zone: options.zone.clone().unwrap_or_else(|| name.clone()),
        name,
        weight: options.weight.max(1),
        quic: address.clone(),
        http: address,
    })
}

/// The cluster's secret: any of its nodes has it.
fn secret_of(dir: &Path, known: &[NodeSpec]) -> Result<String, InitError> {
    let files = known.iter().map(|n| dir.join(&n.name).join("secret"));
    let mut files = std::iter::once(dir.join("secret")).chain(files);
    let found = files.find_map(|file| fs::read_to_string(file).ok());
    found.ok_or_else(|| {
        InitError::Options(format!(
            "no node's files are in {} any more, and with them went the cluster's secret: copy the file `secret` of a node to {}",
            dir.display(),
            dir.join("secret").display()
        ))
    })
}
