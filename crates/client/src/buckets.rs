//! Buckets: their properties, and dropping them.

use quorate_protocol::{
    Answer, BucketAction, BucketDescription, BucketRequest, PropertyChanges, Request,
};

use crate::client::Client;
use crate::error::Error;
use crate::requests::unexpected;

impl Client {
    /// The properties of a bucket. One that nobody created has the cluster's defaults.
    ///
    /// # Errors
    ///
    /// As any request.
    pub async fn bucket(&self, name: impl Into<String>) -> Result<BucketDescription, Error> {
        self.on_bucket(name.into(), BucketAction::Show).await
    }

    /// Creates a bucket.
    ///
    /// # Errors
    ///
    /// Refused if it exists, or if its properties contradict each other or the layout; else as any request.
    pub async fn create_bucket(
        &self,
        name: impl Into<String>,
        properties: PropertyChanges,
    ) -> Result<BucketDescription, Error> {
        self.on_bucket(name.into(), BucketAction::Create(properties))
            .await
    }

    /// Changes properties of a bucket that was created. `kind`, `n` and `regions` cannot be changed.
    ///
    /// # Errors
    ///
    /// As [`Client::create_bucket`]; refused as not found if nobody created it.
    pub async fn update_bucket(
        &self,
        name: impl Into<String>,
        changes: PropertyChanges,
    ) -> Result<BucketDescription, Error> {
        self.on_bucket(name.into(), BucketAction::Update(changes))
            .await
    }

    /// Drops a bucket with everything in it. The name may be used again at once; it shows nothing of what was there.
    ///
    /// # Errors
    ///
    /// As any write: where the outcome is unknown, the drop may spread later. Dropping again is safe, but drops what was
    /// put meanwhile too.
    pub async fn drop_bucket(&self, name: impl Into<String>) -> Result<BucketDescription, Error> {
        self.on_bucket(name.into(), BucketAction::Drop).await
    }

    /// The buckets that were created, by name.
    ///
    /// # Errors
    ///
    /// As any request.
    pub async fn buckets(&self) -> Result<Vec<BucketDescription>, Error> {
        match self.call(Request::Buckets, None).await? {
            Answer::Buckets(buckets) => Ok(buckets),
            other => Err(unexpected(&other, false)),
        }
    }

    async fn on_bucket(
        &self,
        bucket: String,
        action: BucketAction,
    ) -> Result<BucketDescription, Error> {
        let request = Request::Bucket(BucketRequest { bucket, action });
        let write = request.is_write();
        match self.call(request, None).await? {
            Answer::Bucket(bucket) => Ok(*bucket),
            other => Err(unexpected(&other, write)),
        }
    }
}
