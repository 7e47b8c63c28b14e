//! `quorate dev`

use std::path::PathBuf;

use quorate_server::{DevCluster, DevOptions, LogFormat};
use serde_json::json;

use crate::failure::Failure;
use crate::local::{self, Notice};
use crate::output::{self, Form};
use crate::runtime;

/// Run a whole cluster in this process, to try and to develop against
///
/// The nodes speak QUIC with each other as they would on hosts of their own; node I, from 0, answers HTTP on the HTTP port + I.
/// The other commands of the same user find this cluster without being told. Ends on SIGINT (Ctrl-C) and SIGTERM.
#[derive(clap::Args)]
pub(crate) struct Dev {
    /// How many nodes
    #[arg(long, default_value_t = 3)]
    nodes: u16,

    /// The regions, which the nodes belong to in turn
    #[arg(long, value_name = "REGION,…", value_delimiter = ',')]
    regions: Vec<String>,

    /// Where to keep the data, to find it again the next time [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The first node's HTTP port; 0 lets the system choose all of them
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,

    /// How the log is written: "text" for people, or "json", a document a line
    #[arg(
        long,
        value_name = "FORMAT",
        env = "QUORATE_LOG_FORMAT",
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,
}

impl Dev {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        runtime::block_on(async move {
            let stop = runtime::stop_signal()?;
            let options = DevOptions {
                nodes: self.nodes,
                regions: self.regions,
                data_dir: self.data_dir,
                http_port: self.http_port,
            };
            let mut cluster = DevCluster::start(options).map_err(Failure::new)?;
            let notice = Notice {
                pid: std::process::id(),
                client_config: cluster.client_config().to_owned(),
            };
            let posted = local::path().and_then(|path| {
                local::post(&path, &notice).unwrap_or_else(|error| {
                    output::remark(&format!(
                        "cannot write {}, where the other commands look for this cluster: {error}",
                        path.display()
                    ));
                    None
                })
            });
            show(&cluster, form, posted.is_some())?;
            let ended = tokio::select! {
                signal = stop => {
                    output::remark(&format!("{signal}: closing"));
                    Ok(())
                }
                (node, end) = cluster.wait() => Err(Failure::new(match end {
                    Ok(()) => format!("{node} ended by itself"),
                    Err(failure) => format!("{node} ended by itself: {failure}"),
                })),
            };
            drop(posted);
            let stopped = cluster.stop().map_err(Failure::new);
            ended.and(stopped)
        })
    }
}

fn show(cluster: &DevCluster, form: Form, found: bool) -> Result<(), Failure> {
    let nodes = cluster.nodes();
    let client = cluster.client_config();
    if form == Form::Json {
        return output::json(&json!({
            "nodes": nodes,
            "client_config": client,
            "dir": cluster.dir(),
        }));
    }
    let mut table = output::table(&["NODE", "HTTP", "QUIC"]);
    for node in nodes {
        table.add_row([&node.id, &node.url, &node.quic]);
    }
    output::line(&table.trim_fmt())?;
    let find = if found {
        "The other commands find this cluster by themselves.".to_owned()
    } else {
        "Another `quorate dev` is running, or there is no place to tell of this one: name this cluster to the other commands.".to_owned()
    };
    let url = nodes.first().map_or("", |node| node.url.as_str());
    let last = nodes.last().map_or("", |node| node.url.as_str());
    output::line(&format!(
        "\n\
         {find}\n\
         \x20 export QUORATE_CONFIG={client}\n\
         \n\
         In another terminal:\n\
         \x20 curl -X PUT --data 'good morning' {url}/v1/buckets/greetings/keys/hello\n\
         \x20 curl -i {last}/v1/buckets/greetings/keys/hello\n\
         \x20 quorate get greetings hello\n\
         \n\
         Ctrl-C ends it.",
        client = client.display(),
    ))
}
