//! Layers, bounds and errors of the settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::*;

fn load_layers(
    file: Option<&str>,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Settings, SettingsError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dvcr.toml");
    let path = file.map(|text| {
        std::fs::write(&path, text).unwrap();
        path.as_path()
    });
    let environment: BTreeMap<_, _> = environment.iter().copied().collect();
    let flags: Vec<_> = flags
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    load(
        path,
        |name| environment.get(name).map(|text| (*text).to_owned()),
        &flags,
    )
}

fn message(result: Result<Settings, SettingsError>) -> String {
    result.expect_err("settings are refused").to_string()
}

#[test]
fn nothing_set_is_fine() {
    let settings = load_layers(None, &[], &[]).unwrap();
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(settings.data, Path::new("./dvcr-data"));
    assert_eq!(load_layers(Some(""), &[], &[]).unwrap(), settings);
}

#[test]
fn flags_win_over_environment_over_file() {
    let file = Some("drain = \"1s\"\ncache_bytes = 1024\n[limits]\nrequests = 7\n");
    let environment = [("DVCR_DRAIN", "2s"), ("DVCR_LIMITS_REQUESTS", "8")];
    let flags = [("drain", "3s")];
    let settings = load_layers(file, &environment, &flags).unwrap();
    assert_eq!(settings.drain, Time::seconds(3));
    assert_eq!(settings.limits.requests, 8);
    assert_eq!(settings.cache_bytes, Bytes::kib(1));
    assert_eq!(
        settings.limits.connections,
        LimitSettings::default().connections
    );
}

#[test]
fn every_key_has_a_variable() {
    fn leaves(prefix: &str, table: &toml::Table, keys: &mut BTreeSet<String>) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                toml::Value::Table(table) => leaves(&format!("{key}."), table, keys),
                _ => drop(keys.insert(key)),
            }
        }
    }
    let settings = Settings {
        tls: TlsSettings {
            certificate: Some("c".into()),
            key: Some("k".into()),
        },
        ..Settings::default()
    };
    let mut keys = BTreeSet::new();
    leaves("", &toml::Table::try_from(&settings).unwrap(), &mut keys);
    assert_eq!(keys, KEYS.map(str::to_owned).into());
    for key in KEYS {
        let name = variable(key);
        assert!(
            !name.contains("_PORT") && !name.contains("_SERVICE_"),
            "{name}"
        );
    }
}

#[test]
fn every_key_can_be_set() {
    for (key, value) in [
        ("listen", "127.0.0.2:1"),
        ("listen", "[::1]:1"),
        ("data", "/srv"),
        ("allow_anonymous", "everyone-may-read-and-write"),
        ("cache_bytes", "0"),
        ("meta_cache_bytes", "128MiB"),
        ("upload_memory_bytes", "8MiB"),
        ("all_uploads_memory_bytes", "1GiB"),
        ("reserve_bytes", "10GB"),
        ("upload_expiry", "1h"),
        ("lease", "90m"),
        ("drain", "0s"),
        ("sparse", "index"),
        ("immutable", r#"[{ repository = "cvi/**", tags = ["v*"] }]"#),
        (
            "retention",
            r#"[{ repository = "**", untagged_after = "24h", keep = [{ last = 3 }] }]"#,
        ),
        ("gc.interval", "1m"),
        ("gc.grace", "0s"),
        ("gc.unused_percent", "5"),
        ("gc.removed_percent", "100"),
        ("limits.connections", "1"),
        ("limits.requests", "1"),
        ("limits.uri_bytes", "8KiB"),
        ("limits.header_bytes", "8KiB"),
        ("limits.manifest_bytes", "4MiB"),
        ("limits.blob_bytes", "1GiB"),
        ("limits.header_time", "1s"),
        ("limits.body_stall", "1s"),
        ("limits.answer_stall", "1s"),
        ("limits.idle", "1s"),
        ("limits.chunk_min_bytes", "5MiB"),
        ("log.format", "json"),
        ("log.filter", "debug,dvcr::access=off"),
    ] {
        let by_flag = load_layers(None, &[], &[(key, value)]).unwrap();
        let by_variable = load_layers(None, &[(&variable(key), value)], &[]).unwrap();
        assert_eq!(by_flag, by_variable, "{key}");
        assert_ne!(by_flag, Settings::default(), "{key}");
        let printed = by_flag.to_toml().unwrap();
        assert_eq!(
            load_layers(Some(&printed), &[], &[]).unwrap(),
            by_flag,
            "{printed}"
        );
    }
}

#[test]
fn variables_of_kubernetes_are_left_alone() {
    let environment = [
        ("DVCR_PORT", "tcp://10.0.0.1:5000"),
        ("DVCR_SERVICE_HOST", "10.0.0.1"),
        ("DVCR_PORT_5000_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(
        load_layers(None, &environment, &[]).unwrap(),
        Settings::default()
    );
}

#[test]
fn a_wrong_file_is_told_with_its_line() {
    let unknown = message(load_layers(Some("\nlisten_on = \"x\"\n"), &[], &[]));
    assert!(unknown.contains("line 2"), "{unknown}");
    assert!(unknown.contains("listen_on"), "{unknown}");
    let nested = message(load_layers(Some("[limits]\nrequest = 1\n"), &[], &[]));
    assert!(
        nested.contains("line 2") && nested.contains("request"),
        "{nested}"
    );
    let value = message(load_layers(Some("drain = 5\n"), &[], &[]));
    assert!(value.contains("line 1"), "{value}");
    let unit = message(load_layers(Some("cache_bytes = \"1 zillion\"\n"), &[], &[]));
    assert!(unit.contains("256MiB"), "{unit}");
}

#[test]
fn a_wrong_file_is_not_repeated() {
    for text in [
        r#"{"auths": {"r.example": {"auth": "bWU6c2VjcmV0"}}}"#,
        "password = \"bWU6c2VjcmV0\"\n",
        "listen = \"127.0.0.1:1\"\nbWU6c2VjcmV0",
        "key bWU6c2VjcmV0",
        "[log]\nfilter = \"bWU6c2VjcmV0",
    ] {
        let refused = message(load_layers(Some(text), &[], &[]));
        assert!(!refused.contains("bWU6"), "{refused}");
        assert!(
            refused.contains(": line ") && refused.contains(", column "),
            "{refused}"
        );
    }
    let refused = message(load_layers(Some("# é\n  drain = [5, 6]\n"), &[], &[]));
    assert!(
        refused.contains(": line 2, column 11: drain: "),
        "{refused}"
    );
}

#[test]
fn an_address_without_port_or_ip_is_told_how_to_write_one() {
    for listen in ["localhost:5000", ":5000", "5000", "127.0.0.1", ""] {
        let by_flag = message(load_layers(None, &[], &[("listen", listen)]));
        let file = format!("listen = \"{listen}\"");
        let by_file = message(load_layers(Some(&file), &[], &[]));
        for refused in [by_flag, by_file] {
            assert!(refused.contains("for example 127.0.0.1:5000"), "{refused}");
            assert!(refused.contains(&format!("{listen:?}")), "{refused}");
        }
    }
}

#[test]
fn a_wrong_variable_or_flag_is_told_by_name() {
    let variable = message(load_layers(None, &[("DVCR_LISTEN", "5000")], &[]));
    assert!(variable.starts_with("DVCR_LISTEN: "), "{variable}");
    let number = message(load_layers(None, &[("DVCR_LIMITS_REQUESTS", "many")], &[]));
    assert!(number.contains("many"), "{number}");
    let flag = message(load_layers(None, &[], &[("nonsense", "1")]));
    assert!(
        flag.contains("limits.requests"),
        "known keys are listed: {flag}"
    );
    let sparse = message(load_layers(None, &[("DVCR_SPARSE", "some")], &[]));
    assert!(sparse.contains("none, index, all"), "{sparse}");
}

#[test]
fn rules_whose_globs_can_fit_nothing_are_refused() {
    for (rule, part, culprit) in [
        (
            r#"[[retention]]
            repository = "vi/Debian""#,
            "retention[0].repository",
            "'D'",
        ),
        (
            r#"[[retention]]
            repository = "vi/**"
            keep = [{ last = 3 }, { tags = ["latest", "v[0-9]*"] }]"#,
            "retention[0].keep[1].tags[1]",
            "'['",
        ),
        (
            r#"[[immutable]]
            repository = "**"
            tags = ["{stable,lts}"]"#,
            "immutable[0].tags[0]",
            "'{'",
        ),
        (
            r#"[[immutable]]
            repository = "**"
            except = ["rc-?"]"#,
            "immutable[0].except[0]",
            "'?'",
        ),
        (
            r#"[[immutable]]
            repository = """#,
            "immutable[0].repository",
            "is empty",
        ),
        (
            r#"[[sparse]]
            sparse = "index"
            repository = "mirror/""#,
            "sparse[0].repository",
            "the part \"\"",
        ),
    ] {
        let by_file = message(load_layers(Some(rule), &[], &[]));
        assert!(by_file.contains(culprit), "{by_file}");
        let line = format!("line {}", rule.lines().count());
        assert!(
            by_file.contains(&line) && by_file.contains(part),
            "{by_file}"
        );
        let (key, rest) = rule.trim_start_matches('[').split_once("]]").unwrap();
        if key == "sparse" {
            // A variable has one for all repositories.
            continue;
        }
        let list = format!("[{{{}}}]", rest.trim().replace('\n', ","));
        let by_flag = message(load_layers(None, &[], &[(key, &list)]));
        let place = format!("flag for {key}: {part}: ");
        assert!(
            by_flag.starts_with(&place) && by_flag.contains(culprit),
            "{by_flag}"
        );
    }
}

#[test]
fn an_open_address_needs_words() {
    for listen in ["0.0.0.0:5000", "[::]:5000", "192.0.2.1:5000"] {
        let refused = message(load_layers(None, &[], &[("listen", listen)]));
        assert!(refused.contains(listen), "{refused}");
        assert!(
            refused.contains("--allow-anonymous everyone-may-read-and-write"),
            "{refused}"
        );
        let told = [
            ("listen", listen),
            ("allow_anonymous", "everyone-may-read-and-write"),
        ];
        assert!(load_layers(None, &[], &told).is_ok());
        assert!(load_layers(None, &[], &[("listen", listen), ("allow_anonymous", "yes")]).is_err());
    }
}

#[test]
fn values_out_of_bounds_are_told_all_at_once() {
    let flags = [
        ("upload_memory_bytes", "1KiB"),
        ("lease", "500ms"),
        ("limits.requests", "0"),
        ("limits.uri_bytes", "1MiB"),
        ("limits.manifest_bytes", "9MiB"),
        ("tls.key", "/key.pem"),
        ("log.filter", "a=b=c"),
    ];
    let faults = message(load_layers(None, &[], &flags));
    assert_eq!(faults.lines().count(), flags.len(), "{faults}");
    for (key, _) in flags {
        assert!(faults.contains(key), "{key}: {faults}");
    }
    assert!(faults.contains("limits.requests is 0, but must be 1 to 1000000"));
}

#[test]
fn all_uploads_have_room_for_one() {
    let flags = [
        ("upload_memory_bytes", "64MiB"),
        ("all_uploads_memory_bytes", "32MiB"),
    ];
    assert!(message(load_layers(None, &[], &flags)).contains("64MiB"));
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Some(Path::new("/nonexistent/dvcr.toml")), |_| None, &[]).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/dvcr.toml"));
}

#[test]
fn every_key_is_in_the_documentation_with_its_default() {
    let page = include_str!("../../../docs/settings.md");
    let defaults = toml::Table::try_from(Settings::default()).unwrap();
    for key in KEYS {
        let mut value = Some(toml::Value::Table(defaults.clone()));
        for part in key.split('.') {
            value = value.and_then(|table| table.get(part).cloned());
        }
        let default = match value {
            Some(toml::Value::String(text)) => format!("`{text}`"),
            Some(toml::Value::Integer(number)) => format!("`{number}`"),
            _ => "none".to_owned(),
        };
        let row = format!("\n| `{key}` | {default} | ");
        assert!(page.contains(&row), "docs/settings.md lacks {row}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, KEYS.len());
}
