//! What was acknowledged under `durability = "fsync"` is there after all processes were killed in the middle of a load.

use std::time::Duration;

use quorate_client::{Client, ClientConfig, Error};
use quorate_tests::Cluster;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Clients that write at the same time: enough for the committer to have batches under way when the processes die.
const WRITERS: u64 = 8;
/// Rounds of two acknowledged writes after which the processes are killed. More make the test longer and not harder: what
/// is at stake is the last batch.
const ROUNDS_MIN: usize = 200;
/// How long any one step may take, on a machine that does other things too.
const BOUND: Duration = Duration::from_secs(60);

/// What one writer was told before its cluster died.
struct Told {
    writer: u64,
    /// Keys of its own, written once each: all with a number below this were acknowledged.
    written: u64,
    /// The last number that was acknowledged on the key that it overwrites, each time with the context of the time before.
    overwritten: u64,
}

fn value(writer: u64, number: u64) -> String {
    format!("value {number} of writer {writer} {}", "x".repeat(300))
}

async fn write_until_refused(
    client: Client,
    writer: u64,
    acknowledged: mpsc::UnboundedSender<()>,
) -> Told {
    let mut told = Told {
        writer,
        written: 0,
        overwritten: 0,
    };
    let mut context = None;
    loop {
        let outcome: Result<(), Error> = async {
            let number = told.written;
            client
                .put("once", format!("{writer}/{number}"), value(writer, number))
                .await?;
            told.written += 1;
            let number = told.overwritten + 1;
            let put = client
                .put("again", writer.to_string(), value(writer, number))
                .context(context.take());
            context = Some(put.await?);
            told.overwritten = number;
            Ok(())
        }
        .await;
        if outcome.is_err() {
            return told;
        }
        // Nobody counts any more once there are enough.
        let _ = acknowledged.send(());
    }
}

async fn connect(cluster: &Cluster) -> Client {
    let config = ClientConfig::load(&cluster.client_config()).expect("init wrote it");
    Client::connect(config).await.expect("the nodes are ready")
}

#[tokio::test]
async fn acknowledged_writes_survive_the_death_of_every_process() {
    let mut cluster = Cluster::start(3);
    let client = connect(&cluster).await;
    let (acknowledged, mut told) = mpsc::unbounded_channel();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            tokio::spawn(write_until_refused(
                client.clone(),
                writer,
                acknowledged.clone(),
            ))
        })
        .collect();
    drop((client, acknowledged));
    let enough = async {
        for _ in 0..ROUNDS_MIN {
            told.recv()
                .await
                .expect("a writer goes on as long as the cluster lives");
        }
    };
    timeout(BOUND, enough)
        .await
        .expect("the cluster takes writes");
    for number in 1..=3 {
        cluster.node(number).signal(Signal::KILL);
    }
    for number in 1..=3 {
        cluster.node(number).ended(BOUND);
    }
    let mut told = Vec::new();
    for writer in writers {
        let ended = timeout(BOUND, writer)
            .await
            .expect("a writer ends when its cluster is gone");
        told.push(ended.expect("a writer does not panic"));
    }

    for number in 1..=3 {
        cluster.start_node(number);
    }
    cluster.await_all();
    let client = connect(&cluster).await;
    let mut acknowledged = 0;
    for Told {
        writer,
        written,
        overwritten,
    } in told
    {
        acknowledged += written + overwritten;
        for number in 0..written {
            let key = format!("{writer}/{number}");
            let held = client.get("once", &key).await.expect("the nodes answer");
            let held = held.unwrap_or_else(|| panic!("{key} was acknowledged and is lost"));
            assert_eq!(held.siblings.len(), 1, "{key}");
            assert_eq!(held.siblings[0].value.data, value(writer, number), "{key}");
        }
        if overwritten == 0 {
            continue;
        }
        // The put after the last acknowledged one may have happened or not; it had seen the one before, so either is alone.
        let held = client
            .get("again", writer.to_string())
            .await
            .expect("the nodes answer");
        let held = held.expect("it was overwritten and never deleted");
        let values: Vec<_> = held
            .siblings
            .iter()
            .map(|sibling| &sibling.value.data)
            .collect();
        let (last, next) = (value(writer, overwritten), value(writer, overwritten + 1));
        assert!(
            values.len() == 1 && (values[0] == &last || values[0] == &next),
            "writer {writer}: {values:?}"
        );
    }
    eprintln!("{acknowledged} writes were acknowledged before the kill, and none is lost");
}
