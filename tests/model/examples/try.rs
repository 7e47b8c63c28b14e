use quorate_model::{explore::*, rules::*, world::*};
use stateright::{Checker, Model};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    // writes faults(crhlp) max contexts(f/a) apart(e h r / -) mode(b/d) defects...
    let faults = a[2]
        .chars()
        .filter_map(|c| match c {
            'c' => Some(Fault::Crash),
            'r' => Some(Fault::Rollback),
            'h' => Some(Fault::LateHint),
            'l' => Some(Fault::RecordLoss),
            'p' => Some(Fault::Replacement),
            _ => None,
        })
        .collect();
    let defects: Vec<Defect> = a[7..]
        .iter()
        .map(|n| {
            *Defect::ALL
                .iter()
                .find(|d| format!("{d:?}") == *n)
                .expect("defect")
        })
        .collect();
    let apart = Apart {
        exchanges: a[5].contains('e'),
        hearings: a[5].contains('h'),
        rounds: a[5].contains('r'),
    };
    let b = Bounds {
        writes: a[1][..1].parse().unwrap(),
        puts: a[1][1..].parse().unwrap(),
        faults,
        faults_max: a[3].parse().unwrap(),
        contexts: if a[4] == "a" {
            Contexts::Any
        } else {
            Contexts::Fresh
        },
        apart,
        rules: Rules::without(&defects),
    };
    let t = std::time::Instant::now();
    let builder = b
        .clone()
        .checker()
        .threads(2)
        .timeout(std::time::Duration::from_secs(
            std::env::var("T")
                .ok()
                .and_then(|t| t.parse().ok())
                .unwrap_or(100),
        ));
    let (n, d, done) = if a[6] == "b" {
        let c = builder.spawn_bfs().join();
        (c.unique_state_count(), c.discovery("judged"), c.is_done())
    } else {
        let c = builder.spawn_dfs().join();
        (c.unique_state_count(), c.discovery("judged"), c.is_done())
    };
    println!(
        "{:?}: {n} states {:?} done {done} {}",
        &a[1..],
        t.elapsed(),
        if d.is_some() { "BREACH" } else { "ok" }
    );
    if let Some(p) = d {
        for (s, step) in p.clone().into_vec() {
            println!(
                "   {:?}\n {step:?}",
                s.replicas.map(|r| format!(
                    "L{:03b} E{:03b} O{:03b} A{:03b} {:?} told{:03b}",
                    r.record.live, r.record.evidence, r.own, r.adopted, r.amnesia, r.told
                ))
            );
        }
        println!("{:?} {:?}", b.judge(p.last_state()), p.last_state().owed);
    }
}
