//! Hooks of modules that are not loaded yet: by far most nodes load none after they have joined.

use std::path::{Path, PathBuf};

use super::traced::Event;

pub(super) struct Late {
    waiting: Vec<&'static Event>,
    modules: PathBuf,
}

impl Late {
    pub(super) fn new(waiting: Vec<&'static Event>, host_sys: &Path) -> Self {
        Self {
            waiting,
            modules: host_sys.join("module"),
        }
    }

    /// The events whose modules have appeared, once each.
    pub(super) fn loaded(&mut self) -> Vec<&'static Event> {
        let is_loaded = |event: &&'static Event| {
            let module = event.module.unwrap_or(event.category);
            self.modules.join(module).is_dir()
        };
        let (loaded, waiting) = self.waiting.iter().partition(|&event| is_loaded(event));
        self.waiting = waiting;
        loaded
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::traced::EVENTS;
    use super::*;

    #[test]
    fn an_event_is_attached_once_its_module_is_there_and_not_twice() {
        let sys = tempfile::tempdir().unwrap();
        let waiting = EVENTS.iter().filter(|event| event.module.is_some());
        let mut late = Late::new(waiting.collect(), sys.path());
        assert!(late.loaded().is_empty());
        fs::create_dir_all(sys.path().join("module/xfs")).unwrap();
        let names = |loaded: Vec<&Event>| -> Vec<_> {
            loaded.into_iter().map(|event| event.name).collect()
        };
        assert_eq!(names(late.loaded()), ["xfs_force_shutdown"]);
        assert!(late.loaded().is_empty());
    }
}
