//! PURE. What was asked of AWS, and what it answered.

use std::collections::BTreeMap;

use jiff::Timestamp;

#[derive(Clone, Debug)]
pub struct Call {
    pub at: Timestamp,
    pub service: &'static str,
    pub action: String,
    pub params: BTreeMap<String, String>,
    /// Whether it was signed; the signature is not checked.
    pub authorized: bool,
    /// `KEY/DATE/REGION/SERVICE/aws4_request` of the signature.
    pub credential: Option<String>,
    /// The SDK's count, such as `attempt=1; max=1`.
    pub attempt: Option<String>,
    pub user_agent: String,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// A code of AWS's, or the HTTP status where there is none.
    Error(String),
    /// The connection was closed without an answer.
    Lost,
}

impl Call {
    /// As IAM policies name it.
    pub fn name(&self) -> String {
        format!("{}:{}", self.service, self.action)
    }

    pub fn is_mutating(&self) -> bool {
        let reads = ["Describe", "Get", "List"]
            .iter()
            .any(|verb| self.action.starts_with(verb));
        let dry = self
            .params
            .get("DryRun")
            .is_some_and(|value| value == "true");
        !reads && !dry
    }
}
