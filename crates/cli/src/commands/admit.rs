//! `quorate admit`

use std::path::PathBuf;

use quorate_server::AdmitOptions;

use crate::failure::Failure;
use crate::output::{self, Form};

/// Make the certificate and configuration of a node that is to join
///
/// DIR is where `quorate init` made the cluster: its CA key signs the certificate. NAME.toml and the directory NAME are made there, and are
/// all that the node's host needs. The cluster itself is not touched: the node joins by `quorate cluster join`.
#[derive(clap::Args)]
pub(crate) struct Admit {
    /// The cluster's directory
    dir: PathBuf,

    /// The node's name [default: node-I, the next that is free]
    #[arg(long)]
    name: Option<String>,

    /// Its region [default: that of the cluster's first node]
    #[arg(long)]
    region: Option<String>,

    /// What fails together within the region [default: the node's name]
    #[arg(long)]
    zone: Option<String>,

    /// Its capacity relative to the others
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    weight: u32,

    /// The host name or address at which it is reached [default: 127.0.0.1, where all other nodes are on this machine]
    #[arg(long)]
    host: Option<String>,

    /// It listens on this port: UDP for QUIC, TCP for HTTP [default: the next after those of the cluster's nodes]
    #[arg(long)]
    port: Option<u16>,
}

impl Admit {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let options = AdmitOptions {
            name: self.name,
            region: self.region,
            zone: self.zone,
            weight: self.weight,
            host: self.host,
            port: self.port,
        };
        let made = quorate_server::admit(&self.dir, &options).map_err(Failure::new)?;
        if form == Form::Json {
            return output::json(&made);
        }
        output::line(&format!(
            "{} is admitted: {}",
            made.id,
            made.config.display()
        ))?;
        output::remark(&format!(
            "\nStart it with: quorate server --config {}\nThen let it join with: quorate cluster join {}",
            made.config.display(),
            made.node.display()
        ));
        Ok(())
    }
}
