//! The node's parameters while it runs: read by services, set one by one or together, with a reason where that cannot be.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;

use super::{
    parameters::{Takes, Value, Values},
    settings::Settings,
};

/// Brings new settings into force; the names are those of the parameters that changed. What it refuses is not set.
pub type Apply = Box<dyn FnMut(&Settings, &[&'static str]) -> Result<(), String> + Send>;

/// The parameter whose value may not be what is in force: `~/set_vocabulary` and the vocabulary loop bring other lists
/// into use. So it is a change even where the value stays the same.
const CLASSES: &str = "classes";

/// The values in force. Shared by the services and the node's loop, never by the frame loop.
pub struct ParameterStore {
    inner: Mutex<Inner>,
    /// Made of the values; read without waiting for a list that is just being encoded.
    settings: ArcSwap<Settings>,
}

struct Inner {
    values: Values,
    phase: Phase,
}

/// What becomes of a new value.
enum Phase {
    /// It waits for the node to be configured.
    Unconfigured,
    /// It waits for the end of what is under way, which works with the values as they were at its beginning.
    Configuring {
        /// The values at the beginning.
        used: Values,
        /// Made of them.
        settings: Arc<Settings>,
        /// What was set since.
        set: BTreeSet<&'static str>,
    },
    /// It is applied.
    Configured(Apply),
}

impl ParameterStore {
    /// The parameters of an unconfigured node, and the settings they make.
    #[must_use]
    pub fn new(values: Values, settings: Settings) -> Self {
        let inner = Inner { values, phase: Phase::Unconfigured };
        Self { inner: Mutex::new(inner), settings: ArcSwap::from_pointee(settings) }
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

    /// The settings to configure the node with. What can only be set before that is refused from now on; what else is set
    /// waits for [`Self::configured`].
    #[must_use]
    pub fn begin_configuring(&self) -> Arc<Settings> {
        let mut inner = self.inner();
        let (settings, used) = (self.settings(), inner.values.clone());
        inner.phase = Phase::Configuring { used, settings: Arc::clone(&settings), set: BTreeSet::new() };
        settings
    }

    /// Values come into force by `apply` from now on; first of all those set since [`Self::begin_configuring`].
    ///
    /// # Errors
    /// Why those could not be applied. The parameters then are again what the node was configured with.
    pub fn configured(&self, mut apply: Apply) -> Result<(), String> {
        let mut inner = self.inner();
        let mut outcome = Ok(());
        if let Phase::Configuring { used, settings, set } = std::mem::replace(&mut inner.phase, Phase::Unconfigured)
            && !set.is_empty()
        {
            let set: Vec<_> = set.into_iter().collect();
            outcome = apply(&self.settings(), &set).map_err(|reason| format!("{}: {reason}", set.join(", ")));
            if outcome.is_err() {
                inner.values = used;
                self.settings.store(settings);
            }
        }
        inner.phase = Phase::Configured(apply);
        outcome
    }

    /// Values come into force when the node is configured from now on.
    pub fn unconfigured(&self) {
        self.inner().phase = Phase::Unconfigured;
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
            if values.get(&name) == before && name != CLASSES {
                continue;
            }
            match (row.takes, &inner.phase) {
                (Takes::AtOnce, _) | (Takes::WhenConfigured, Phase::Unconfigured) => {}
                (Takes::WhenConfigured, Phase::Configuring { .. }) => {
                    return Err(format!(
                        "{name} takes effect when the node is configured, which is under way: wait for its end, \
                         then bring it to the state unconfigured first (deactivate, cleanup)"
                    ));
                }
                (Takes::WhenConfigured, Phase::Configured(_)) => {
                    return Err(format!(
                        "{name} takes effect when the node is configured: bring it to the state unconfigured first \
                         (deactivate, cleanup)"
                    ));
                }
                (Takes::AtStart, _) => {
                    return Err(format!(
                        "{name} is read when the node starts: set it on its command line or in its file"
                    ));
                }
            }
            changed.push(row.name);
        }
        let settings = Settings::from_values(&values).map_err(|error| error.to_string())?;
        match &mut inner.phase {
            Phase::Configuring { set, .. } => set.extend(changed),
            Phase::Configured(apply) if !changed.is_empty() => apply(&settings, &changed)?,
            Phase::Configured(_) | Phase::Unconfigured => {}
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

    /// What was applied: the box threshold, and the names.
    type Applied = Arc<Mutex<Vec<(Option<f32>, Vec<&'static str>)>>>;

    fn defaults() -> ParameterStore {
        let values = Values::new(TABLE);
        let settings = Settings::from_values(&values).unwrap();
        ParameterStore::new(values, settings)
    }

    /// Notes what it applies, and refuses the class "???".
    fn noting() -> (Apply, Applied) {
        let applied = Applied::default();
        let notes = Arc::clone(&applied);
        let apply = move |settings: &Settings, changed: &[&'static str]| {
            if settings.classes.iter().any(|class| class == "???") {
                return Err("a bad class".to_owned());
            }
            notes.lock().unwrap().push((settings.box_threshold, changed.to_vec()));
            Ok(())
        };
        (Box::new(apply), applied)
    }

    fn classes(names: &[&str]) -> Value {
        Value::Texts(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn set(store: &ParameterStore, name: &str, value: Value) -> Result<(), String> {
        store.set(vec![(name.to_owned(), value)])
    }

    #[test]
    fn values_are_set_at_once_or_refused_with_a_reason() {
        let store = defaults();
        set(&store, "threads.detector", Value::Integer(3)).unwrap();
        let (apply, applied) = noting();
        store.configured(apply).unwrap();
        set(&store, "box_threshold", Value::Double(0.25)).unwrap();
        set(&store, "box_threshold", Value::Integer(1)).unwrap();
        set(&store, "box_threshold", Value::Double(1.0)).unwrap();
        let changes = [(Some(0.25), vec!["box_threshold"]), (Some(1.0), vec!["box_threshold"])];
        assert_eq!(*applied.lock().unwrap(), changes, "the same value again is no change");
        for (name, value, reason) in [
            ("box_treshold", Value::Double(0.5), "did you mean \"box_threshold\""),
            ("box_threshold", Value::Text("high".to_owned()), "found high"),
            ("box_threshold", Value::Double(1.5), "from -1 to 1"),
            ("box_threshold", Value::Double(-0.5), "must be in [0, 1]"),
            ("classes", classes(&["???"]), "a bad class"),
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
        store.unconfigured();
        set(&store, "threads.detector", Value::Integer(1)).unwrap();
    }

    #[test]
    fn what_is_set_while_the_node_is_being_configured_comes_into_force_at_its_end() {
        let store = defaults();
        let used = store.begin_configuring();
        set(&store, "box_threshold", Value::Double(0.25)).unwrap();
        set(&store, "classes", classes(&["mug"])).unwrap();
        let error = set(&store, "threads.detector", Value::Integer(3)).unwrap_err();
        assert!(error.contains("under way"), "{error}");
        set(&store, "threads.detector", Value::Integer(0)).unwrap();
        assert_eq!((used.box_threshold, store.settings().box_threshold), (None, Some(0.25)));
        let (apply, applied) = noting();
        store.configured(apply).unwrap();
        assert_eq!(*applied.lock().unwrap(), [(Some(0.25), vec!["box_threshold", "classes"])]);
        assert_eq!(store.values().get("threads.detector"), Some(Value::Integer(0)));
    }

    #[test]
    fn what_was_set_meanwhile_and_cannot_be_applied_is_as_it_was() {
        let store = defaults();
        set(&store, "classes", classes(&["mug"])).unwrap();
        let used = store.begin_configuring();
        set(&store, "classes", classes(&["???"])).unwrap();
        let (apply, applied) = noting();
        assert_eq!(store.configured(apply).unwrap_err(), "classes: a bad class");
        assert_eq!(store.values().get("classes"), Some(classes(&["mug"])));
        assert_eq!(store.settings(), used);
        set(&store, "box_threshold", Value::Double(0.5)).unwrap();
        assert_eq!(*applied.lock().unwrap(), [(Some(0.5), vec!["box_threshold"])], "it goes on all the same");
    }

    #[test]
    fn the_same_classes_again_are_applied_as_another_list_may_be_in_force() {
        let store = defaults();
        set(&store, "classes", classes(&["mug"])).unwrap();
        let _used = store.begin_configuring();
        set(&store, "classes", classes(&["mug"])).unwrap();
        let (apply, applied) = noting();
        store.configured(apply).unwrap();
        set(&store, "classes", classes(&["mug"])).unwrap();
        assert_eq!(*applied.lock().unwrap(), [(None, vec!["classes"]), (None, vec!["classes"])]);
    }
}
