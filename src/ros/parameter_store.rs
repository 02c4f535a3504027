//! The node's parameters while it runs: read by services, set one by one or together, with a reason where that cannot be.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::{
    parameters::{Takes, Value, Values},
    settings::Settings,
};

/// Brings new settings into force; the names are those of the parameters that changed. What it refuses is not set.
pub type Apply = Box<dyn FnMut(&Settings, &[&'static str]) -> Result<(), String> + Send>;

/// The values in force. Shared by the services and the node's loop, never by the frame loop.
pub struct ParameterStore {
    inner: Mutex<Inner>,
    /// Made of the values; read without waiting for a list that is just being encoded.
    settings: ArcSwap<Settings>,
}

struct Inner {
    values: Values,
    /// `None` while the node is unconfigured.
    apply: Option<Apply>,
}

impl ParameterStore {
    /// The parameters of an unconfigured node, and the settings they make.
    #[must_use]
    pub fn new(values: Values, settings: Settings) -> Self {
        Self { inner: Mutex::new(Inner { values, apply: None }), settings: ArcSwap::from_pointee(settings) }
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values in force.
    #[must_use]
    pub fn values(&self) -> Values {
        self.inner().values.clone()
    }

    /// Says how values come into force from now on; `None`: when the node is configured.
    pub fn applied_by(&self, apply: Option<Apply>) {
        self.inner().apply = apply;
    }

    /// Sets all of `wanted`, or nothing.
    ///
    /// # Errors
    /// The reason, for people: unknown name, another type, out of range, contradicting another parameter, not to be set
    /// while the node is in this state.
    pub fn set(&self, wanted: Vec<(String, Value)>) -> Result<(), String> {
        let mut inner = self.inner();
        let mut values = inner.values.clone();
        let mut changed = Vec::new();
        for (name, value) in wanted {
            const PLACE: &str = "set_parameters";
            let row = values.row(&name, PLACE).map_err(|error| error.to_string())?;
            let before = values.get(&name);
            values.assign(&name, value, PLACE).map_err(|error| error.to_string())?;
            if values.get(&name) == before {
                continue;
            }
            match row.takes {
                Takes::AtOnce => {}
                Takes::WhenConfigured if inner.apply.is_none() => {}
                Takes::WhenConfigured => {
                    return Err(format!(
                        "{name} takes effect when the node is configured: bring it to the state unconfigured first \
                         (deactivate, cleanup)"
                    ));
                }
                Takes::AtStart => {
                    return Err(format!(
                        "{name} is read when the node starts: set it on its command line or in its file"
                    ));
                }
            }
            changed.push(row.name);
        }
        let settings = Settings::from_values(&values).map_err(|error| error.to_string())?;
        if let Some(apply) = inner.apply.as_mut().filter(|_| !changed.is_empty()) {
            apply(&settings, &changed)?;
        }
        inner.values = values;
        self.settings.store(Arc::new(settings));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ros::parameter_table::TABLE;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn set(store: &ParameterStore, name: &str, value: Value) -> Result<(), String> {
        store.set(vec![(name.to_owned(), value)])
    }

    #[test]
    fn values_are_set_at_once_or_refused_with_a_reason() {
        let defaults = Values::new(TABLE);
        let settings = Settings::from_values(&defaults).unwrap();
        let store = ParameterStore::new(defaults, settings);
        set(&store, "threads.detector", Value::Integer(3)).unwrap();
        let applied = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&applied);
        store.applied_by(Some(Box::new(move |settings, changed| {
            assert!(changed.iter().all(|name| ["box_threshold", "classes"].contains(name)), "{changed:?}");
            if settings.classes.iter().any(|class| class == "???") {
                return Err("a bad class".to_owned());
            }
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })));
        set(&store, "box_threshold", Value::Double(0.25)).unwrap();
        set(&store, "box_threshold", Value::Integer(1)).unwrap();
        set(&store, "box_threshold", Value::Double(1.0)).unwrap();
        assert_eq!(applied.load(Ordering::Relaxed), 2, "the same value again is no change");
        for (name, value, reason) in [
            ("box_treshold", Value::Double(0.5), "did you mean \"box_threshold\""),
            ("box_threshold", Value::Text("high".to_owned()), "found high"),
            ("box_threshold", Value::Double(1.5), "from -1 to 1"),
            ("box_threshold", Value::Double(-0.5), "must be in [0, 1]"),
            ("classes", Value::Texts(vec!["???".to_owned()]), "a bad class"),
            ("threads.detector", Value::Integer(1), "state unconfigured first"),
            ("use_sim_time", Value::Bool(true), "when the node starts"),
        ] {
            let before: Vec<_> = store.values().iter().collect();
            let error = set(&store, name, value).unwrap_err();
            assert!(error.contains(reason), "{name}: {error}");
            assert_eq!(store.values().iter().collect::<Vec<_>>(), before, "nothing changes");
        }
        let both = vec![("box_threshold".to_owned(), Value::Double(0.1)), ("nms_iou".to_owned(), Value::Double(7.0))];
        store.set(both).unwrap_err();
        assert_eq!(store.values().get("box_threshold"), Some(Value::Double(1.0)), "all or nothing");
        store.applied_by(None);
        set(&store, "threads.detector", Value::Integer(1)).unwrap();
    }
}
