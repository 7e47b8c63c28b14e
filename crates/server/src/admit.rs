//! Making the files of a node that is to join a cluster.
//!
//! They are like those of the nodes that the cluster was made with (see [`init()`](crate::init())), with one more: `NAME/node.json` says who the
//! node is, until a layout does. Ids are never given twice, for another node's data is known by them: each that was given is a file in `DIR/ca/nodes`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use quorate_ring::{Layout, NodeId, NodeSpec};
use quorate_transport::{Authority, Identity};
use serde::Serialize;

use crate::init::{
    InitError, VALIDITY, check_name, host_in_address, io_error, make_dir, node_toml, write,
};

const GIVEN: &str = "nodes";

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
    /// The host at which it is reached. This machine, if `None`, where all others are on it.
    pub host: Option<String>,
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
    let mut spec = plan(&dir, options, &known)?;
    let secret = secret_of(&dir, &known)?;
    spec.id = give_id(&dir, spec.id)?;

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
    let greatest = known.iter().map(|n| n.id.0).max().unwrap_or(0);
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
    let host = match &options.host {
        Some(host) => host.clone(),
        None if known.iter().all(|n| is_loopback(&n.quic)) => "127.0.0.1".to_owned(),
        None => {
            return Err(InitError::Options(
                "say at which host the other nodes and clients reach it, with --host: theirs are not all on this machine"
                    .to_owned(),
            ));
        }
    };
    let address = format!("{}:{port}", host_in_address(&host));
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

/// Whether an address is of this machine, seen from itself alone.
pub fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Takes the first id from this one on that was never given. Its file is made by whoever gets it and by nobody else, so that two who admit at one time get
/// two.
fn give_id(dir: &Path, from: NodeId) -> Result<NodeId, InitError> {
    let given = dir.join("ca").join(GIVEN);
    fs::create_dir_all(&given).map_err(io_error("make", &given))?;
    for id in from.0.. {
        let file = given.join(id.to_string());
        match fs::File::create_new(&file).and_then(|file| file.sync_all()) {
            Ok(()) => {
                fs::File::open(&given)
                    .and_then(|dir| dir.sync_all())
                    .map_err(io_error("sync", &given))?;
                return Ok(NodeId(id));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("make", &file)(error)),
        }
    }
    Err(InitError::Options("there is no id left".to_owned()))
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
