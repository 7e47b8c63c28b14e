//! What a request and its answer cost: two endpoints in one process, one thread each, over loopback.
//!
//! ```sh
//! cargo run --release -p quorate-transport --example echo
//! ```
//!
//! The figures are microseconds of CPU of the whole process (both ends, user and system) for each round trip, and
//! microseconds of wall-clock time for comparison.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_transport::{Authority, Connection, Credentials, Endpoint, Expected, Identity, Tuning};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let authority = Authority::create(1)?;
    let year = Duration::from_secs(365 * 86_400);
    let credentials = |identity| -> Result<Credentials, Failure> {
        let issued = authority.issue(&identity, year)?;
        Ok(Credentials::from_pem(
            authority.certificate_pem(),
            &issued.certificate_pem,
            &issued.key_pem,
        )?)
    };
    let node = credentials(Identity::Node(1))?;
    let client = credentials(Identity::Client("echo".into()))?;

    let (address_tx, address_rx) = mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let address = "127.0.0.1:0".parse().expect("a literal address");
            let (endpoint, mut acceptor) =
                Endpoint::bind(address, &node, Tuning::default()).expect("a free port");
            address_tx
                .send(endpoint.local_addr())
                .expect("somebody waits for the address");
            while let Some(connection) = acceptor.accept().await {
                tokio::spawn(echo(connection));
            }
        });
    });
    let address = address_rx.recv()?;

    runtime().block_on(async {
        let endpoint = Endpoint::dialler(&client, Tuning::default())?;
        let mut connection = endpoint.dial(address, Expected::Node(1)).await?;
        println!(
            "{:>10} {:>10} {:>10} {:>12} {:>12} {:>12}",
            "bytes", "in flight", "count", "CPU us", "wall us", "MB/s"
        );
        for (bytes, in_flight, count) in [
            (100, 1, 20_000),
            (100, 64, 500_000),
            (100, 256, 1_000_000),
            (1_024, 1, 20_000),
            (1_024, 64, 200_000),
            (1_024, 256, 300_000),
            (64 * 1_024, 16, 10_000),
            (1_024 * 1_024, 4, 500),
            (8 * 1_024 * 1_024, 2, 60),
        ] {
            // Once to warm up: congestion window, path MTU, allocator.
            round_trips(&mut connection, bytes, in_flight, count / 10).await?;
            let (cpu, start) = (cpu_time()?, Instant::now());
            round_trips(&mut connection, bytes, in_flight, count).await?;
            let (cpu, wall) = (cpu_time()? - cpu, start.elapsed());
            println!(
                "{bytes:>10} {in_flight:>10} {count:>10} {:>12.2} {:>12.2} {:>12.0}",
                cpu.as_secs_f64() * 1e6 / count as f64,
                wall.as_secs_f64() * 1e6 / count as f64,
                (2 * bytes * count) as f64 / wall.as_secs_f64() / 1e6,
            );
        }
        Ok(())
    })
}

async fn echo(mut connection: Connection) {
    while let Some(frames) = connection.recv().await {
        for frame in frames {
            if connection.send(frame).is_err() {
                return;
            }
        }
    }
}

/// Keeps `in_flight` requests under way until `count` were answered.
async fn round_trips(
    connection: &mut Connection,
    bytes: usize,
    in_flight: usize,
    count: usize,
) -> Result<(), Failure> {
    let body = Bytes::from(vec![7; bytes]);
    let (mut sent, mut answered) = (0, 0);
    while answered < count {
        while sent < count && sent - answered < in_flight {
            connection.send(body.clone())?;
            sent += 1;
        }
        let frames = connection.recv().await.ok_or("the connection was closed")?;
        answered += frames.len();
    }
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// CPU time of this process so far: user and system, from `/proc`, in ticks of 10 ms.
fn cpu_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    // Fields 14 and 15 of the line, counted from 1; the two before the bracket are gone.
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
