//! `quorate init`

use std::path::PathBuf;

use quorate_server::InitOptions;

use crate::failure::Failure;
use crate::output::{self, Form};

/// Make a cluster's certificates and configurations, ready to start
///
/// Makes a cluster CA, one node-I.toml for each node with its certificate, and client.toml for clients. Node I, from 1,
/// listens on the base port + I: UDP for QUIC, TCP for HTTP. The CA's private key stays in DIR/ca and is needed only to
/// admit nodes.
#[derive(clap::Args)]
pub(crate) struct Init {
    /// Where to put them; a directory that holds a cluster is refused
    dir: PathBuf,

    /// How many nodes [default: one for each host, 3 where all are at one]
    #[arg(long)]
    nodes: Option<u16>,

    /// The regions, which the nodes belong to in turn
    #[arg(long, value_name = "REGION,…", value_delimiter = ',')]
    regions: Vec<String>,

    /// The host name or address at which the nodes are reached: one for all, or one for each node
    #[arg(
        long,
        value_name = "HOST,…",
        value_delimiter = ',',
        default_value = "127.0.0.1"
    )]
    host: Vec<String>,

    /// Node I listens on this port + I
    #[arg(long, value_name = "PORT", default_value_t = 7400)]
    base_port: u16,
}

impl Init {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let of_hosts = match self.host.len() {
            1 => 3,
            many => u16::try_from(many).unwrap_or(u16::MAX),
        };
        let options = InitOptions {
            nodes: self.nodes.unwrap_or(of_hosts),
            regions: self.regions,
            hosts: self.host,
            base_port: self.base_port,
        };
        let report = quorate_server::init(&self.dir, &options).map_err(Failure::new)?;
        if form == Form::Json {
            return output::json(&report);
        }
        let mut table = output::table(&["NODE", "CONFIG", "QUIC", "HTTP"]);
        for node in &report.nodes {
            let config = node.config.display().to_string();
            let http = format!("http://{}", node.http);
            table.add_row([
                node.id.as_str(),
                config.as_str(),
                node.quic.as_str(),
                http.as_str(),
            ]);
        }
        output::line(&table.trim_fmt())?;
        output::remark(&format!(
            "\nStart each node with: quorate server --config FILE\nThen speak to them with: export QUORATE_CONFIG={}",
            report.client.display()
        ));
        Ok(())
    }
}
