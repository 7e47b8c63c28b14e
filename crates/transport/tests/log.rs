//! What is logged about peers that are refused. Alone in its binary: `tracing` remembers for each place in the code
//! whether anybody listens, and threads of other tests would make it forget this one.

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use common::{ALPN, CLUSTER, calm, client, pair, refused, run};
use quorate_transport::Authority;

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_refused_peer_is_logged_once_with_a_reason() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    run(async {
        let mut pair = pair(calm());
        let stranger = Authority::create(CLUSTER)
            .unwrap()
            .issue(&client(), common::DAY)
            .unwrap();
        for _ in 0..5 {
            refused(
                &pair,
                Some((&stranger.certificate_pem, &stranger.key_pem)),
                ALPN,
            )
            .await;
        }
        // The log line follows the refusal; a good connection comes after it.
        pair.connect().await;
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let ours: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("quorate_transport"))
        .collect();
    assert_eq!(ours.len(), 1, "{text}");
    assert!(
        ours[0].contains("a peer could not connect") && ours[0].contains("127.0.0.1:"),
        "{text}"
    );
    assert!(
        ours[0].contains("its certificate was refused here"),
        "{text}"
    );
}
