//! The specification of the wire is what the code does: its tables are compared with the code, its examples are read, and
//! every sample is decoded, compared with what it says to mean, and encoded to the same octets again.

mod wire;

use bytes::Bytes;
use camagent_core::{Codec, Framing};
use camagent_proto::{
    CloseCode, Error,
    frame::{Body, EndReason, Frame, FrameStart, OpenOutcome, Reader, Skip, StreamError, TrackInfo},
    message::Message,
    varint,
};
use serde_json::{Value, json};
use wire::{
    pages::{fences, table},
    samples::{all, file, frame, number, octets, read, readable, text, write},
};

/// FRAME_MORE as the code spells it.
fn in_code(kind: &str) -> String {
    let word = |word: &str| word[..1].to_owned() + &word[1..].to_lowercase();
    kind.split('_').map(word).collect()
}

fn hexadecimal(cell: &str) -> u64 {
    u64::from_str_radix(cell.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("{cell} is no number"))
}

fn decimal(cell: &str) -> u64 {
    cell.parse().unwrap_or_else(|_| panic!("{cell} is no number"))
}

/// A body with another integer in the place of the last one.
fn with_last(fields: &[u64]) -> Reader {
    let mut body = Vec::new();
    fields.iter().for_each(|field| varint::put(*field, &mut body));
    Reader::new(body.into())
}

#[test]
fn messages_are_those_of_the_table() {
    let rows = table("messages.md", "table: messages");
    let kinds: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(kinds, Message::KINDS);
    for row in rows {
        let most = decimal(&row[2]) as usize;
        let of = |length: usize| {
            let mut text = json!({"type": row[0], "data": {}}).to_string();
            text.extend(std::iter::repeat_n(' ', length - text.len()));
            matches!(Message::read(&text), Err(Error::Limit { .. }))
        };
        assert!(!of(most) && of(most + 1), "{}: {most} octets", row[0]);
        let samples = file(&format!("messages/{}.json", row[0]));
        assert!(samples.as_array().is_some_and(|samples| !samples.is_empty()), "{} has no sample", row[0]);
    }
}

/// Where the objects of the field tables are in the samples, and what may stand in them besides.
const OBJECTS: &[(&str, &str, &str, &[&str])] = &[
    ("register", "register", "", &[]),
    ("camera", "register", "/cameras/0", &["model", "max_fps"]),
    ("source", "register", "/cameras/0/sources/0", &[]),
    ("service", "register", "/cameras/0/services/0", &[]),
    ("tunnels", "register", "/tunnels", &[]),
    ("streams", "register", "/streams", &[]),
    ("streams", "registered", "/streams", &[]),
    ("cameras", "cameras", "", &[]),
    ("registered", "registered", "", &[]),
    ("limits", "registered", "/limits", &[]),
    ("resume", "registered", "/resume/0", &[]),
    ("heartbeat", "heartbeat", "", &[]),
    ("statistics", "heartbeat", "/statistics", &["temperature"]),
    ("data", "heartbeat", "/statistics/data", &[]),
    ("held", "heartbeat", "/statistics/held/gate~1sub", &[]),
    ("heartbeat_ack", "heartbeat_ack", "", &[]),
    ("command", "command", "", &[]),
    ("command_result", "command_result", "", &[]),
    ("command_error", "command_result", "/error", &[]),
    ("event", "event", "", &[]),
    ("event_ack", "event_ack", "", &[]),
    ("source_state", "source_state", "", &[]),
    ("key_frame", "key_frame", "", &[]),
    ("goaway", "goaway", "", &[]),
    ("error", "error", "", &[]),
];

#[test]
fn fields_have_the_types_and_defaults_of_the_tables() {
    for (name, kind, pointer, others) in OBJECTS {
        let rows = table("messages.md", &format!("fields: {name}"));
        let samples = file(&format!("messages/{kind}.json"));
        let samples: Vec<&Value> =
            samples.as_array().expect("a list").iter().filter(|s| s["means"].pointer(pointer).is_some()).collect();
        for sample in &samples {
            let object = sample["means"].pointer(pointer).and_then(Value::as_object).expect("an object");
            for key in object.keys() {
                let is_known = rows.iter().any(|row| row[0] == *key) || others.contains(&key.as_str());
                assert!(is_known, "{name}: {key} is not in the table");
            }
        }
        for row in rows {
            let [field, kind_of_value, default, _] = row.as_slice() else { panic!("{name}: four cells in {row:?}") };
            let with = samples.iter().find(|sample| sample["means"].pointer(pointer).unwrap().get(field).is_some());
            let with = with.unwrap_or_else(|| panic!("no sample of {name} has {field}"));
            let change = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
                let mut data = with["means"].clone();
                change(data.pointer_mut(pointer).and_then(Value::as_object_mut).expect("an object"));
                Message::read(&json!({"type": kind, "data": data}).to_string())
            };
            let set = |value: Value| change(&|object| drop(object.insert(field.clone(), value.clone())));
            let without = change(&|object| drop(object.remove(field)));
            match default.as_str() {
                "required" => assert!(without.is_err(), "{name}.{field} is required"),
                "left out" | "the defaults" | "all 0" => assert!(without.is_ok(), "{name}.{field} may be left out"),
                literal => {
                    let default = serde_json::from_str(literal).unwrap_or_else(|_| panic!("{name}.{field}: {literal}"));
                    assert_eq!(without.expect("may be left out"), set(default).expect("the default is right"));
                }
            }
            let takes_null = kind_of_value.contains("or null") || kind_of_value == "any";
            assert_eq!(set(Value::Null).is_ok(), takes_null, "{name}.{field}: null");
            for wrong in wrong_values(kind_of_value) {
                assert!(set(wrong.clone()).is_err(), "{name}.{field} is {kind_of_value} and takes {wrong}");
            }
            if let Some((_, bits)) = kind_of_value.split_once("below 2^").filter(|(front, _)| *front == "integer ") {
                let limit = 1_u64 << decimal(bits);
                assert!(set(json!(limit - 1)).is_ok() && set(json!(limit)).is_err(), "{name}.{field}: 2^{bits}");
            }
        }
    }
}

/// What a field of that type must not take.
fn wrong_values(kind: &str) -> Vec<Value> {
    match kind {
        "any" => vec![],
        "boolean" => vec![json!(1), json!("true")],
        _ if kind.starts_with("integer") => vec![json!("7"), json!(-1), json!(1.5), json!(true)],
        _ if kind.starts_with("list of integers") => vec![json!(7), json!(["x"])],
        _ if kind.starts_with("list of strings") => vec![json!("x"), json!([7])],
        _ if kind.starts_with("list of") => vec![json!(7), json!([7])],
        "always, on_demand or off" | "live or record" | "ok or error" | "raw or shared" | "32 hexadecimal digits" => {
            vec![json!(7), json!("x")]
        }
        _ if kind.starts_with("string") || kind == "name" => vec![json!(7), json!({})],
        "held by name" => vec![json!(7), json!({"gate/main": 7})],
        "octets by name" => vec![json!(7), json!({"gate/main": "x"})],
        "limits" | "tunnel limits" | "statistics" | "data use or null" => vec![json!(7), json!("x")],
        _ if kind.starts_with("streams point") => vec![json!(7), json!("x")],
        _ if kind.starts_with("error") => vec![json!(7), json!({})],
        other => panic!("{other} is a type that this test does not know"),
    }
}

#[test]
fn frames_are_those_of_the_table() {
    let rows = table("records.md", "table: frames");
    let kinds: Vec<(u64, String)> = rows.iter().map(|row| (hexadecimal(&row[0]), in_code(&row[1]))).collect();
    let known: Vec<(u64, String)> = Frame::KINDS.iter().map(|(number, name)| (*number, (*name).to_owned())).collect();
    assert_eq!(kinds, known);
}

#[test]
fn bodies_are_laid_out_as_their_tables_say() {
    for row in table("records.md", "table: frames") {
        let fields = table("records.md", &format!("body: {}", row[1]));
        for sample in file(&format!("frames/{}.json", row[1].to_lowercase())).as_array().expect("a list") {
            let parts: Vec<&str> = text(&sample["hex"]).split(' ').collect();
            assert_eq!(parts.len(), fields.len() + 2, "{}: type, length, one part for each field", sample["name"]);
            assert_eq!(varint::get(&octets(&json!(parts[0]))).expect("an integer").0, hexadecimal(&row[0]));
            let body: usize = parts[2..].iter().map(|part| part.len() / 2).sum();
            assert_eq!(varint::get(&octets(&json!(parts[1]))), Some((body as u64, parts[1].len() / 2)));
            for (field, part) in fields.iter().zip(&parts[2..]) {
                let means = &sample["means"][&field[0]];
                let mut reader = Reader::new(octets(&json!(part)));
                let value = match field[1].as_str() {
                    "integer" | "integer32" => json!(reader.integer("sample").expect("an integer")),
                    "signed" => json!(reader.signed("sample").expect("an integer")),
                    "text" => json!(reader.text(most(&field[2]), "sample").expect("text")),
                    "octets" => json!(format!("{:02x}", reader.octets(most(&field[2]), "sample").expect("octets"))),
                    "rest" => json!(format!("{:02x}", reader.rest())),
                    other => panic!("{other} is no type"),
                };
                assert_eq!(reader.remaining(), 0, "{}: {}", sample["name"], field[0]);
                assert_eq!(value, as_on_the_wire(&field[0], means), "{}: {}", sample["name"], field[0]);
            }
        }
    }
}

/// How many octets a field may have, as its row says.
fn most(row: &str) -> usize {
    let (_, behind) = row.split_once("t most ").unwrap_or_else(|| panic!("{row:?} tells no length"));
    let (number, _) = behind.split_once(" octets").unwrap_or_else(|| panic!("{row:?} tells no octets"));
    decimal(&number.replace(' ', "")) as usize
}

#[test]
fn texts_and_octets_are_as_long_as_their_tables_say() {
    for row in table("records.md", "table: frames") {
        let fields = table("records.md", &format!("body: {}", row[1]));
        let sample = &file(&format!("frames/{}.json", row[1].to_lowercase()))[0];
        let parts: Vec<Vec<u8>> =
            text(&sample["hex"]).split(' ').skip(2).map(|part| octets(&json!(part)).to_vec()).collect();
        for (at, field) in
            fields.iter().enumerate().filter(|(_, field)| ["text", "octets"].contains(&field[1].as_str()))
        {
            let with = |length: usize| {
                let mut parts = parts.clone();
                parts[at].clear();
                varint::put(length as u64, &mut parts[at]);
                parts[at].extend(std::iter::repeat_n(b'a', length));
                let body = parts.concat();
                let mut record = Vec::new();
                varint::put(hexadecimal(&row[0]), &mut record);
                varint::put(body.len() as u64, &mut record);
                record.extend(body);
                read(record.into())
            };
            let most = most(&field[2]);
            assert!(with(most).is_ok(), "{} {}: {most} octets", row[1], field[0]);
            let error = with(most + 1).expect_err("one too many");
            assert_eq!(error.close_code(), CloseCode::LimitExceeded, "{} {}: {error}", row[1], field[0]);
        }
    }
}

/// Flags and reasons have words in the samples and numbers on the wire; the tables lead from one to the other.
fn as_on_the_wire(field: &str, means: &Value) -> Value {
    match (field, means) {
        ("flags", Value::Array(words)) => {
            let rows = table("records.md", "table: flags");
            let set = rows.iter().filter(|row| words.iter().any(|word| *word == row[1]));
            json!(set.map(|row| hexadecimal(&row[0])).sum::<u64>())
        }
        ("reason", Value::String(word)) => {
            let rows = table("records.md", "table: reasons");
            json!(decimal(&rows.iter().find(|row| row[1] == *word).expect("a reason of the table")[0]))
        }
        ("cause", Value::String(word)) => named("ends", word),
        ("fin", Value::Bool(fin)) => json!(u64::from(*fin)),
        ("outcome", Value::String(word)) => named("outcomes", word),
        ("error", Value::String(word)) => named("stream errors", word),
        (_, value) => value.clone(),
    }
}

fn named(table_name: &str, word: &str) -> Value {
    let rows = table("records.md", &format!("table: {table_name}"));
    json!(decimal(&rows.iter().find(|row| row[1] == word).expect("a word of the table")[0]))
}

#[test]
fn outcomes_and_stream_errors_have_their_numbers() {
    let outcomes = table("records.md", "table: outcomes");
    for row in &outcomes {
        assert_eq!(OpenOutcome::from_number(decimal(&row[0])).name(), row[1]);
    }
    assert_eq!(OpenOutcome::from_number(outcomes.len() as u64).name(), "other");
    let errors = table("records.md", "table: stream errors");
    for row in &errors {
        assert_eq!(StreamError::from_number(decimal(&row[0])).name(), row[1]);
    }
    assert_eq!(StreamError::from_number(errors.len() as u64).name(), "other");
}

#[test]
fn codecs_framings_flags_and_reasons_have_their_numbers() {
    let codecs = table("records.md", "table: codecs");
    let told: Vec<(u64, &str)> = codecs.iter().map(|row| (decimal(&row[0]), row[1].as_str())).collect();
    assert_eq!(told, Codec::ALL.map(|codec| (u64::from(codec.number()), codec.name())));
    let framings = table("records.md", "table: framings");
    let told: Vec<(u64, &str)> = framings.iter().map(|row| (decimal(&row[0]), row[1].as_str())).collect();
    assert_eq!(told, Framing::ALL.map(|framing| (u64::from(framing.number()), framing.name())));
    for (row, codec) in codecs.iter().zip(Codec::ALL) {
        let fitting = Framing::ALL.into_iter().filter(|framing| framing.fits(codec));
        let fitting: Vec<String> = fitting.map(|framing| framing.number().to_string()).collect();
        assert_eq!(row[2], fitting.join(", "), "{}", codec.name());
    }
    let flags = table("records.md", "table: flags");
    for row in &flags {
        let head = FrameStart::read(&mut with_last(&[0, 0, 0, 0, 0, hexadecimal(&row[0]), 0])).expect("a frame").head;
        assert_eq!(
            [head.key, head.disposable, head.discontinuity],
            ["key", "disposable", "discontinuity"].map(|f| f == row[1])
        );
    }
    assert_eq!(flags.len(), 3);
    for row in table("records.md", "table: reasons") {
        let skip = Skip::read(&mut with_last(&[0, 0, 0, decimal(&row[0])])).expect("a SKIP");
        assert_eq!(skip.reason.name(), row[1]);
    }
    assert_eq!(Skip::read(&mut with_last(&[0, 0, 0, 9])).expect("a SKIP").reason.name(), "other");
    for row in table("records.md", "table: ends") {
        assert_eq!(EndReason::from_number(decimal(&row[0])).name(), row[1]);
    }
    assert_eq!(EndReason::from_number(3).name(), "other");
}

#[test]
fn close_codes_are_those_of_the_table() {
    let rows = table("closing.md", "table: close codes");
    let told: Vec<(u64, &str)> = rows.iter().map(|row| (decimal(&row[0]), row[1].as_str())).collect();
    let known: Vec<(u64, &str)> = CloseCode::ALL.iter().map(|code| (u64::from(code.number()), code.name())).collect();
    assert_eq!(told, known);
}

#[test]
fn reserved_kinds_are_unknown_today() {
    for row in table("versions.md", "table: reserved").iter().filter(|row| row[0].starts_with("0x")) {
        let (first, last) = row[0].trim_end_matches(", odd").split_once(" to ").unwrap_or((&row[0], &row[0]));
        for number in (hexadecimal(first)..=hexadecimal(last)).step_by(2) {
            let error = read(Bytes::from(vec![number as u8, 0])).expect_err("an odd kind closes");
            assert_eq!(error.close_code(), CloseCode::ProtocolError, "{number:#x}");
        }
    }
}

#[test]
fn examples_on_the_pages_are_messages() {
    let mut count = 0;
    for fence in fences("messages.md", "json") {
        for value in serde_json::Deserializer::from_str(&fence).into_iter::<Value>() {
            let example = value.unwrap_or_else(|error| panic!("{error} in {fence}"));
            let message = Message::read(&example.to_string()).unwrap_or_else(|error| panic!("{error} in {example}"));
            assert!(message.is_some(), "{example}");
            count += 1;
        }
    }
    assert!(count >= Message::KINDS.len(), "only {count} examples");
}

#[test]
fn the_record_on_the_page_is_the_sample() {
    let page = wire::pages::page("media.md");
    let (_, sample) = page.split_once("## Sample").expect("a sample");
    let hex = sample.split("```").nth(1).expect("a fence");
    assert_eq!(octets(&json!(hex)), octets(&file("records/first.json")["hex"]));
    let page = wire::pages::page("tunnels.md");
    let (_, sample) = page.split_once("## Sample").expect("a sample");
    let hex = sample.split("```").nth(1).expect("a fence");
    assert_eq!(octets(&json!(hex)), octets(&file("records/tunnel-opened.json")["hex"]));
    let page = wire::pages::page("records.md");
    let (_, sample) = page.split_once("Sample, a key frame of 3 octets").expect("a sample");
    let (sample, _) = sample.split_once("\n\n").expect("an end");
    let digits: Vec<&str> = sample.split('`').skip(1).step_by(2).collect();
    assert_eq!(octets(&json!(digits.join(" "))), octets(&file("frames/frame.json")[0]["hex"]));
}

#[test]
fn binary_samples_mean_what_they_say_and_come_back() {
    let mut kinds = std::collections::BTreeSet::new();
    for (name, sample) in all("frames").into_iter().chain(all("records")).filter(|(name, _)| name != "refused.json") {
        let record = octets(&sample["hex"]);
        let (frames, skipped) =
            read(record.clone()).unwrap_or_else(|error| panic!("{name} {}: {error}", sample["name"]));
        kinds.extend(frames.iter().map(Frame::number));
        let means = match &sample["means"] {
            Value::Array(several) => several.clone(),
            one => vec![one.clone()],
        };
        assert_eq!(frames.iter().map(readable).collect::<Vec<_>>(), means, "{name} {}", sample["name"]);
        assert_eq!(means.iter().map(frame).collect::<Vec<_>>(), frames, "{name} {}", sample["name"]);
        match sample.get("skipped") {
            // What a later version sends is read, and written as this one does.
            Some(count) => assert_eq!(skipped, number(count), "{name}"),
            None => assert_eq!(write(&frames), record, "{name} {}", sample["name"]),
        }
    }
    assert_eq!(kinds.len(), Frame::KINDS.len(), "every kind has a sample");
}

#[test]
fn text_samples_mean_what_they_say_and_come_back() {
    for kind in Message::KINDS {
        for sample in file(&format!("messages/{kind}.json")).as_array().expect("a list") {
            let told = text(&sample["text"]);
            let message = Message::read(told).expect("is right").expect("is known");
            assert_eq!(message.kind(), *kind);
            assert_eq!(message.to_text(), told, "{}", sample["name"]);
            let means = json!({"type": kind, "data": sample["means"]});
            assert_eq!(serde_json::from_str::<Value>(told).expect("JSON"), means, "{}", sample["name"]);
        }
    }
    for sample in file("messages/tolerated.json").as_array().expect("a list") {
        let message =
            Message::read(text(&sample["text"])).unwrap_or_else(|error| panic!("{}: {error}", sample["name"]));
        let means = message.as_ref().map(|message| {
            let plain = json!({"type": message.kind(), "data": sample["means"]}).to_string();
            Message::read(&plain).expect("is right").expect("is known")
        });
        assert_eq!(message, means, "{}", sample["name"]);
        assert_eq!(message.is_none(), sample["means"].is_null(), "{}", sample["name"]);
    }
}

#[test]
fn refused_samples_are_refused() {
    for sample in file("records/refused.json").as_array().expect("a list") {
        let error = read(octets(&sample["hex"])).map(|_| ()).expect_err(text(&sample["name"]));
        assert_eq!(u64::from(error.close_code().number()), number(&sample["close"]), "{}: {error}", sample["name"]);
    }
    for sample in file("messages/refused.json").as_array().expect("a list") {
        let error = Message::read(text(&sample["text"])).map(|_| ()).expect_err(text(&sample["name"]));
        assert_eq!(error.close_code(), CloseCode::ProtocolError, "{}: {error}", sample["name"]);
    }
}

#[test]
fn unknown_numbers_of_a_track_do_not_end_the_session() {
    let mut body = Vec::new();
    let Frame::Track(track) = frame(&file("frames/track.json")[0]["means"]) else { panic!("a TRACK") };
    TrackInfo { codec: 200, framing: 99, ..track }.write(&mut body);
    let read = TrackInfo::read(&mut Reader::new(body.into())).expect("is read");
    assert_eq!((Codec::from_number(read.codec), Framing::from_number(read.framing)), (None, None));
}
