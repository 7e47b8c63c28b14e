//! `quorate bucket`

use clap::{Args, Subcommand};
use quorate_client::Error;
use quorate_protocol::{
    BucketDescription, BucketDocument, PROPERTIES, PropertyChanges, Refusal, ttl_text,
};

use crate::failure::Failure;
use crate::options::ClusterArgs;
use crate::output::{self, Form};
use crate::runtime;

/// Buckets and their properties
///
/// A bucket exists as soon as something is put into it, with the cluster's defaults. Creating one sets properties of its
/// own. kind, n and regions are for life; the others can be changed, and requests can override them.
#[derive(Args)]
pub(crate) struct Bucket {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Create a bucket with properties of its own
    Create(Change),
    /// Show a bucket's properties
    Show(Show),
    /// Change properties of a bucket that was created
    Update(Change),
    /// List the buckets that were created
    List(List),
    /// Drop a bucket with everything in it
    ///
    /// The name can be used again at once and shows nothing of what was there, whichever node is asked.
    Delete(Delete),
}

#[derive(Args)]
struct Show {
    /// The bucket
    bucket: String,

    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Args)]
struct Delete {
    /// The bucket
    bucket: String,

    /// The bucket's name once more
    #[arg(long, value_name = "BUCKET")]
    confirm: String,

    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Args)]
struct Change {
    /// The bucket
    bucket: String,

    #[command(flatten)]
    properties: PropertyArgs,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// The properties as flags.
#[derive(Args)]
#[command(next_help_heading = "Properties")]
struct PropertyArgs {
    /// What its values are: register
    #[arg(long)]
    kind: Option<String>,

    /// Copies in each region [default: the cluster's, 3]
    #[arg(long)]
    n: Option<String>,

    /// The regions that hold copies, with commas between [default: all]
    #[arg(long)]
    regions: Option<String>,

    /// Replicas that must answer a read: a number, one, quorum, all, local_quorum or each_quorum
    #[arg(long)]
    r: Option<String>,

    /// Replicas that must take a write
    #[arg(long)]
    w: Option<String>,

    /// Of those that answer a read, how many must be primaries
    #[arg(long)]
    pr: Option<String>,

    /// Of those that take a write, how many must be primaries
    #[arg(long)]
    pw: Option<String>,

    /// Of those that take a write, how many must have it on disk
    #[arg(long)]
    dw: Option<String>,

    /// Whether other nodes may stand in for primaries that are out of reach: true or false
    #[arg(long)]
    sloppy: Option<String>,

    /// How long a value lives whose put does not say, from 1s to 10 years; none for no end
    #[arg(long)]
    ttl: Option<String>,

    /// The most siblings that a put may leave
    #[arg(long, alias = "max_siblings")]
    max_siblings: Option<String>,
}

impl PropertyArgs {
    fn changes(&self) -> Result<PropertyChanges, Failure> {
        let mut changes = PropertyChanges::default();
        for name in PROPERTIES {
            let given = match name {
                "kind" => &self.kind,
                "n" => &self.n,
                "regions" => &self.regions,
                "r" => &self.r,
                "w" => &self.w,
                "pr" => &self.pr,
                "pw" => &self.pw,
                "dw" => &self.dw,
                "ttl" => &self.ttl,
                "sloppy" => &self.sloppy,
                _ => &self.max_siblings,
            };
            if let Some(text) = given {
                changes.set(name, text).map_err(Failure::Usage)?;
            }
        }
        Ok(changes)
    }
}

impl Bucket {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        match self.action {
            Action::Create(change) => {
                let changes = change.properties.changes()?;
                let bucket = runtime::block_on(async {
                    let client = change.cluster.connect().await?;
                    let created = client.create_bucket(change.bucket, changes).await;
                    created.map_err(Failure::new)
                })?;
                show(&bucket, form)
            }
            Action::Update(change) => {
                let changes = change.properties.changes()?;
                if changes == PropertyChanges::default() {
                    return Err(Failure::Usage(
                        "nothing to change: name a property, as in --r 1".to_owned(),
                    ));
                }
                let bucket = runtime::block_on(async {
                    let client = change.cluster.connect().await?;
                    let updated = client.update_bucket(change.bucket, changes).await;
                    updated.map_err(not_found)
                })?;
                show(&bucket, form)
            }
            Action::Show(Show { bucket, cluster }) => {
                let bucket = runtime::block_on(async {
                    let client = cluster.connect().await?;
                    client.bucket(bucket).await.map_err(Failure::new)
                })?;
                show(&bucket, form)
            }
            Action::List(List { cluster }) => {
                let buckets = runtime::block_on(async {
                    let client = cluster.connect().await?;
                    client.buckets().await.map_err(Failure::new)
                })?;
                list(&buckets, form)
            }
            Action::Delete(delete) => delete.run(form),
        }
    }
}

impl Delete {
    fn run(self, form: Form) -> Result<(), Failure> {
        if self.confirm != self.bucket {
            return Err(Failure::Usage(format!(
                "dropping a bucket removes everything in it: confirm with --confirm '{}'",
                self.bucket
            )));
        }
        let bucket = runtime::block_on(async {
            let client = self.cluster.connect().await?;
            let dropped = client.drop_bucket(self.bucket).await;
            dropped.map_err(Failure::new)
        })?;
        match form {
            Form::Json => output::json(&BucketDocument::from(&bucket)),
            Form::Table => Ok(()),
        }
    }
}

fn not_found(error: Error) -> Failure {
    match error.refusal() {
        Some(Refusal::NotFound(why)) => Failure::NotFound(why.clone()),
        _ => Failure::new(error),
    }
}

fn show(bucket: &BucketDescription, form: Form) -> Result<(), Failure> {
    if form == Form::Json {
        return output::json(&BucketDocument::from(bucket));
    }
    let mut table = output::table(&["PROPERTY", "VALUE"]);
    for (name, text) in bucket.properties() {
        table.add_row([name, &text]);
    }
    output::line(&table.trim_fmt())?;
    if !bucket.created {
        output::remark("nobody created this bucket: these are the cluster's defaults");
    }
    Ok(())
}

fn list(buckets: &[BucketDescription], form: Form) -> Result<(), Failure> {
    if form == Form::Json {
        return output::json(&buckets.iter().map(BucketDocument::from).collect::<Vec<_>>());
    }
    let mut table = output::table(&[
        "BUCKET",
        "KIND",
        "N",
        "REGIONS",
        "R",
        "W",
        "PR",
        "PW",
        "DW",
        "TTL",
        "MAX_SIBLINGS",
        "SLOPPY",
    ]);
    for bucket in buckets {
        table.add_row([
            bucket.name.clone(),
            bucket.kind.to_string(),
            bucket.n.to_string(),
            bucket
                .regions
                .as_ref()
                .map_or("all".to_owned(), |r| r.join(",")),
            bucket.r.to_string(),
            bucket.w.to_string(),
            bucket.pr.to_string(),
            bucket.pw.to_string(),
            bucket.dw.to_string(),
            bucket.ttl_ms.map_or("none".to_owned(), ttl_text),
            bucket.max_siblings.to_string(),
            bucket.sloppy.to_string(),
        ]);
    }
    output::line(&table.trim_fmt())
}
