//! PURE. Volumes that are attached to a node. One whose pod has left must be detached before the
//! instance goes, or its next pod waits six minutes for it.

use std::time::Duration;

/// The attach-detach controller itself gives up waiting after this.
pub const LONGEST: Duration = Duration::from_secs(360);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub node: String,
    /// Name of the PersistentVolume.
    pub volume: String,
    /// Namespace and name of its claim.
    pub claim: Option<String>,
    /// May be attached elsewhere at the same time, so nobody waits for it.
    pub shared: bool,
}
