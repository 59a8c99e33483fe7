//! PURE. How a node is emptied: which pods have to leave, who is asked next, who is in the way and
//! whether that can ever end. The list of pods is new in each pass, so nobody who comes late is missed.

pub mod answer;
pub mod budget;
pub mod plan;
pub mod pod;
#[cfg(test)]
mod tests;
pub mod volume;

pub use self::answer::{Answer, Tries};
pub use self::budget::Budget;
pub use self::plan::{Deletion, Drain, Rules, State, Task};
pub use self::pod::{Owner, PodView, Wish};
pub use self::volume::Attachment;
