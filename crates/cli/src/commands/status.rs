//! `quorate status`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_protocol::{NodeOverview, Overview, UpkeepStatus};

use crate::failure::Failure;
use crate::options::ClusterArgs;
use crate::output::{self, Form};
use crate::runtime;

/// Show how the nodes are, and what is wrong
///
/// One node is asked, and it asks all others; --endpoint says which one. What is wrong is told in words below the table. Exits 0
/// once a node has answered, whatever it says; with --check, 1 if anything is wrong.
#[derive(clap::Args)]
pub(crate) struct Status {
    /// Exit with 1 if anything is wrong
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Status {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let overview = runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let status = client.status().await.map_err(Failure::new)?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now_s = now.map_or(0, |since| since.as_secs());
            Ok(Overview::new(&status, &client.layout(), now_s))
        })?;
        match form {
            Form::Json => output::json(&overview)?,
            Form::Table => show(&overview)?,
        }
        if self.check && !overview.concerns.is_empty() {
            return Err(Failure::Told);
        }
        Ok(())
    }
}

fn show(overview: &Overview) -> Result<(), Failure> {
    let all = Columns::of(overview);
    let mut left_out = Vec::new();
    let mut text = all.without(&left_out);
    // What says least goes first.
    for name in ["WEIGHT", "ZONE", "REGION", "VERSION", "ID", "REPAIRED"] {
        let width = text.lines().map(|line| line.chars().count()).max();
        if output::width().is_none_or(|room| width <= Some(room)) {
            break;
        }
        left_out.push(name);
        text = all.without(&left_out);
    }
    output::line(&text)?;
    if !left_out.is_empty() {
        left_out.sort_unstable();
        let names = left_out.join(", ").to_lowercase();
        output::remark(&format!("(Too narrow for {names}: -o json has all.)"));
    }
    if overview.concerns.is_empty() {
        return output::line("\nAll is well.");
    }
    output::line("")?;
    for concern in &overview.concerns {
        output::line(&format!("! {concern}"))?;
    }
    Ok(())
}

/// The table's columns: a heading, and a text for each node.
struct Columns(Vec<(&'static str, Vec<String>)>);

impl Columns {
    fn of(overview: &Overview) -> Columns {
        let rows: Vec<[String; HEADINGS.len()]> = overview.nodes.iter().map(row).collect();
        let column = |(at, heading): (usize, &'static str)| {
            let texts = rows.iter().map(|row| row[at].clone());
            (heading, texts.collect())
        };
        Columns(HEADINGS.into_iter().enumerate().map(column).collect())
    }

    fn without(&self, left_out: &[&str]) -> String {
        let shown = || {
            self.0
                .iter()
                .filter(|(heading, _)| !left_out.contains(heading))
        };
        let headings: Vec<&str> = shown().map(|(heading, _)| *heading).collect();
        let mut table = output::table(&headings);
        for at in 0..self.0[0].1.len() {
            table.add_row(shown().map(|(_, texts)| &texts[at]));
        }
        table.trim_fmt()
    }
}

const HEADINGS: [&str; 13] = [
    "ID", "NAME", "ADDRESS", "REGION", "ZONE", "STATE", "WEIGHT", "SHARE", "KEYS", "DISK", "HINTS",
    "REPAIRED", "VERSION",
];

fn row(node: &NodeOverview) -> [String; 13] {
    let told = node.told.as_ref();
    let of = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let state = match told {
        Some(told) if node.reason.is_none() => {
            let since = humantime::format_duration(Duration::from_secs(coarse(told.uptime_s)));
            format!("up {}", since.to_string().replace(' ', ""))
        }
        _ => node.state.word().to_owned(),
    };
    [
        node.id.to_string(),
        node.name.clone(),
        node.quic.clone(),
        node.region.clone(),
        node.zone.clone(),
        state,
        node.weight.to_string(),
        format!("{:.1}%", node.share * 100.0),
        of(told.map(|told| told.records.to_string())),
        of(told.map(|told| output::human_bytes(told.disk_bytes))),
        of(told.map(|told| {
            let count: u64 = told.hints.iter().map(|hints| hints.count).sum();
            count.to_string()
        })),
        of(told.map(|told| repaired(&told.upkeep))),
        of(told.map(|told| told.version.clone())),
    ]
}

/// How long ago the pair of replicas that has waited longest was found equal; or that a node is being given back what it lost.
fn repaired(upkeep: &UpkeepStatus) -> String {
    if upkeep.refilling > 0 {
        return format!("refilling {}", upkeep.refilling);
    }
    match &upkeep.oldest {
        None => "-".to_owned(),
        Some(oldest) if oldest.never => "not yet".to_owned(),
        Some(oldest) => {
            let ago = humantime::format_duration(Duration::from_secs(coarse(oldest.seconds)));
            format!("{} ago", ago.to_string().replace(' ', ""))
        }
    }
}

/// Seconds, of a long time its days or hours, of a shorter one its minutes: a column is narrow.
fn coarse(seconds: u64) -> u64 {
    let unit = match seconds {
        0..60 => 1,
        60..3_600 => 60,
        3_600..86_400 => 3_600,
        _ => 86_400,
    };
    seconds / unit * unit
}
