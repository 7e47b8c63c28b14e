//! What was acknowledged under `durability = "fsync"` is there after all processes were killed in the middle of a load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_client::{Client, ClientConfig, Error};
use quorate_tests::{Cluster, wait_until};
use rustix::process::Signal;

/// Clients that write at the same time: enough for the committer to have batches under way when the processes die.
const WRITERS: u64 = 8;
/// Acknowledged writes after which the processes are killed. More make the test longer and not harder: what is at stake is
/// the last batch.
const ACKNOWLEDGED_MIN: u64 = 400;

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

async fn write_until_refused(client: Client, writer: u64, acknowledged: Arc<AtomicU64>) -> Told {
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
        acknowledged.fetch_add(2, Ordering::Relaxed);
    }
}

async fn connect(cluster: &Cluster) -> Client {
    let config = ClientConfig::load(&cluster.client_config()).expect("init wrote it");
    Client::connect(config).await.expect("the nodes are ready")
}

#[test]
fn acknowledged_writes_survive_the_death_of_every_process() {
    let mut cluster = Cluster::start(3);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");

    let client = runtime.block_on(connect(&cluster));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            runtime.spawn(write_until_refused(
                client.clone(),
                writer,
                acknowledged.clone(),
            ))
        })
        .collect();
    drop(client);
    let enough = wait_until(Duration::from_secs(60), || {
        acknowledged.load(Ordering::Relaxed) >= ACKNOWLEDGED_MIN
    });
    assert!(
        enough,
        "only {} writes were acknowledged in a minute",
        acknowledged.load(Ordering::Relaxed)
    );
    for number in 1..=3 {
        cluster.node(number).signal(Signal::KILL);
    }
    for number in 1..=3 {
        cluster.node(number).ended(Duration::from_secs(10));
    }
    let mut told = Vec::new();
    for writer in writers {
        let bounded =
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), writer).await });
        told.push(
            bounded
                .expect("a writer ends when its cluster is gone")
                .expect("a writer does not panic"),
        );
    }

    for number in 1..=3 {
        cluster.start_node(number);
    }
    cluster.await_all();
    let checked = runtime.block_on(async {
        let client = connect(&cluster).await;
        let mut checked = 0;
        for Told {
            writer,
            written,
            overwritten,
        } in &told
        {
            for number in 0..*written {
                let key = format!("{writer}/{number}");
                let held = client.get("once", &key).await.expect("the nodes answer");
                let held = held.unwrap_or_else(|| panic!("{key} was acknowledged and is lost"));
                assert_eq!(held.siblings.len(), 1, "{key}");
                assert_eq!(held.siblings[0].value.data, value(*writer, number), "{key}");
                checked += 1;
            }
            if *overwritten == 0 {
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
            let (last, next) = (
                value(*writer, *overwritten),
                value(*writer, overwritten + 1),
            );
            assert!(
                values.len() == 1 && (values[0] == &last || values[0] == &next),
                "writer {writer}: {values:?}"
            );
            checked += 1;
        }
        checked
    });
    eprintln!(
        "{} writes were acknowledged before the kill, {checked} values checked after it",
        told.iter().map(|t| t.written + t.overwritten).sum::<u64>()
    );
}
