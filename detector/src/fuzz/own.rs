//! What agents before this one and people have written: state, boots, configuration.

use crate::boots::Boots;
use crate::config;
use crate::core::{self, Core, Settings};
use crate::reason::ConditionType;
use crate::state::State;

pub(super) fn assert_same_when_read_back(state: &State) {
    let bytes = serde_json::to_vec(state).unwrap_or_else(|error| panic!("write: {error}"));
    let read = State::parse(&bytes, &state.boot_id)
        .unwrap_or_else(|error| panic!("read back: {error:#}"))
        .unwrap_or_else(|| panic!("of another boot"));
    // The subject's workload is written beside it.
    let again = serde_json::to_vec(&read.state).ok();
    assert_eq!((again, read.left_out), (Some(bytes), 0));
}

pub(super) fn state(bytes: &[u8]) {
    let Ok(Some(read)) = State::parse(bytes, super::BOOT) else {
        return;
    };
    assert_same_when_read_back(&read.state);
    let mut core = Core::new(ConditionType::ALL.to_vec());
    core.restore(&read.state, super::now(2));
    core::untold(&read.state, &Settings::default());
}

pub(super) fn boots(bytes: &[u8]) {
    let Ok(mut boots) = Boots::parse(bytes) else {
        return;
    };
    let again = |boots: &Boots| {
        let bytes = serde_json::to_vec(boots).unwrap_or_else(|error| panic!("write: {error}"));
        Boots::parse(&bytes).unwrap_or_else(|error| panic!("read back: {error:#}"))
    };
    assert_eq!(again(&boots), boots);
    boots.start(super::BOOT, super::now(2).wall);
    boots.stop();
    boots.start("another", super::now(3).wall);
    assert_eq!(again(&boots), boots);
}

pub(super) fn config(bytes: &[u8]) {
    let Err(errors) = config::parse(bytes) else {
        return;
    };
    assert!(!errors.is_empty());
    for error in &errors {
        assert!(!error.message.is_empty());
        super::assert_plain(&error.to_string(), 2048);
    }
    assert!(config::summary(&errors).len() <= 700);
}
