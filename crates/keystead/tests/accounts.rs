//! `/security/accounts` and `/security/roles`: ONTAP's resources, the last administrator, and that what is taken from an account is gone at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::{Node, PASSWORD, code};
use keystead::serve::Hooks;
use serde_json::{Value, json};

const PATH: &str = "/security/accounts";

async fn node() -> Node {
    let node = Node::start("", Hooks::default()).await;
    node.svm("svm1").await;
    node
}

async fn path_of(node: &Node, name: &str) -> String {
    let found = node.get(&format!("{PATH}?name={name}")).await;
    assert_eq!(found["num_records"], 1, "{found}");
    found["records"][0]["_links"]["self"]["href"].as_str().unwrap().strip_prefix("/api").unwrap().to_owned()
}

async fn refused(node: &Node, method: &str, path: &str, body: Value) -> (u16, String, String) {
    let answer = node.ask(method, path, Some(body)).await;
    (answer.0, code(&answer), answer.1["error"]["target"].as_str().unwrap_or_default().to_owned())
}

fn expect(status: u16, code: &str, target: &str) -> (u16, String, String) {
    (status, code.to_owned(), target.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_made_shown_changed_and_deleted() {
    let node = node().await;
    // As the collection of Ansible writes it: dotted members, and nothing of an owner for the cluster.
    let body = json!({
        "name": "joe.smith", "role.name": "readonly", "password": "a good password", "comment": "reads",
        "applications": [{ "application": "http", "authentication_methods": ["password"], "second_authentication_method": "none" }],
    });
    let (status, headers, answer) = node.call("POST", &format!("{PATH}?return_records=true"), Some(body)).await;
    assert_eq!(status, 201, "{answer}");
    let cluster = node.get("/cluster").await;
    let record = &answer["records"][0];
    assert_eq!(
        (&record["name"], &record["scope"], &record["role"]["name"], &record["locked"]),
        (&json!("joe.smith"), &json!("cluster"), &json!("readonly"), &json!(false))
    );
    assert_eq!(record["owner"]["name"], cluster["name"]);
    assert!(!answer.to_string().contains("password\":\"a good") && !answer.to_string().contains("argon2"), "{answer}");
    let path = path_of(&node, "joe.smith").await;
    assert_eq!(headers["location"].to_str().unwrap().strip_prefix("/api").unwrap(), path);
    let joe = node.caller("joe.smith", "a good password");
    assert_eq!(joe.login().await, 200);
    assert_eq!(node.caller("Joe.Smith", "a good password").login().await, 401, "a name is one with its case");

    // An SVM's: the role comes with the owner.
    let answer = node.ask("POST", PATH, Some(json!({ "name": "tenant", "password": PASSWORD, "owner": { "name": "svm1" } }))).await;
    assert_eq!(answer, (201, json!({})));
    let shown = node.get(&format!("{}?fields=**", path_of(&node, "tenant").await)).await;
    assert_eq!((&shown["scope"], &shown["role"]["name"], &shown["owner"]["name"]), (&json!("svm"), &json!("vsadmin"), &json!("svm1")));
    assert_eq!(shown["applications"][0], json!({ "application": "http", "authentication_methods": ["password"], "second_authentication_method": "none" }));
    let tenant = node.caller("tenant", PASSWORD);
    let seen = tenant.call("GET", &format!("{PATH}?fields=name"), None).await;
    assert_eq!((seen.body["num_records"].as_u64(), &seen.body["records"][0]["name"]), (Some(1), &json!("tenant")));

    // As Ansible finds and changes them.
    assert_eq!(node.get(&format!("{PATH}?name=tenant&owner.name=svm1")).await["num_records"], 1);
    assert_eq!(node.get(&format!("{PATH}?name=joe.smith&scope=cluster")).await["num_records"], 1);
    let owner = cluster_owner(&node).await;
    let named = format!("{path}?name=joe.smith&owner.uuid={owner}");
    assert_eq!(node.ask("PATCH", &named, Some(json!({ "role.name": "admin", "comment": null }))).await, (200, json!({})));
    assert_eq!(refused(&node, "PATCH", &format!("{path}?name=other"), json!({ "locked": true })).await, expect(404, "4", "name"));
    assert_eq!(joe.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm2" }))).await.status, 201, "an administrator now");
    let by_query = node.ask("PATCH", &format!("{PATH}?name=joe.smith&return_timeout=5"), Some(json!({ "role": { "name": "readonly" } }))).await;
    assert_eq!(by_query.0, 200, "{by_query:?}");
    assert_eq!(joe.call("POST", "/svm/svms", Some(json!({ "name": "svm3" }))).await.code(), "6", "and a reader again");

    // As netapp-ontap changes many: each record by owner and name.
    let records = json!({ "records": [{ "owner": { "uuid": owner }, "name": "joe.smith", "comment": "in a list" }, { "owner.uuid": owner, "name": "nobody", "comment": "x" }] });
    let answer = node.ask("PATCH", &format!("{PATH}?return_timeout=10&continue_on_failure=true"), Some(records)).await;
    assert!(answer.0 == 404 && code(&answer) == "4", "one of the two is not there: {answer:?}");
    assert_eq!(node.get(&format!("{path}?fields=comment")).await["comment"], "in a list");

    for (change, before) in [(json!({ "locked": true }), "locked"), (json!({ "password": "another one" }), "changed")] {
        assert_eq!(node.ask("PATCH", &path, Some(json!({ "locked": false, "password": "a good password" }))).await.0, 200);
        assert_eq!(joe.login().await, 200);
        assert_eq!(node.ask("PATCH", &path, Some(change)).await.0, 200);
        assert_eq!(joe.login().await, 401, "a login that is remembered ends at once where the account is {before}");
    }
    assert_eq!(node.ask("PATCH", &path, Some(json!({ "password": "a good password" }))).await.0, 200);
    assert_eq!(joe.login().await, 200);
    assert_eq!(node.ask("DELETE", &path, Some(json!({}))).await, (200, json!({})));
    assert_eq!(joe.login().await, 401);
    assert_eq!(refused(&node, "DELETE", &path, json!({})).await, expect(404, "4", "name"));
    // The SVM takes its accounts along.
    let svm = node.get("/svm/svms?name=svm1").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    assert_eq!(tenant.login().await, 200);
    assert_eq!(node.ask("DELETE", &format!("/svm/svms/{svm}?return_timeout=30"), None).await.0, 200);
    assert_eq!(tenant.login().await, 401);
    assert_eq!(node.get(&format!("{PATH}?name=tenant")).await["num_records"], 0);
    node.stop().await;
}

async fn cluster_owner(node: &Node) -> String {
    node.get(&format!("{PATH}?name=admin")).await["records"][0]["owner"]["uuid"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_refused_with_its_code() {
    let node = node().await;
    let good = json!({ "name": "joe", "password": "a good password" });
    let with = |changes: Value| {
        let mut body = good.clone();
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let applications = |methods: Value| json!({ "applications": [{ "application": "http", "authentication_methods": methods }] });
    for (changes, status, code, target) in [
        (json!({ "name": "" }), 400, "262245", "name"),
        (json!({ "name": "jo" }), 400, "262247", "name"),
        (json!({ "name": "j:oe" }), 400, "262247", "name"),
        (json!({ "name": "Keystead" }), 400, "262247", "name"),
        (json!({ "name": "Admin" }), 409, "1", "name"),
        (json!({ "password": "" }), 400, "262212", "password"),
        (json!({ "password": "short" }), 400, "262245", "password"),
        (json!({ "role": { "name": "backup" } }), 400, "262247", "role.name"),
        (json!({ "role": { "name": "vsadmin" } }), 400, "262186", "owner.name"),
        (json!({ "role": { "name": "admin" }, "owner": { "name": "svm1" } }), 400, "262186", "role.name"),
        (json!({ "owner": { "name": "svm9" } }), 400, "2621462", "owner.name"),
        (json!({ "applications": "http" }), 400, "262254", "applications"),
        (json!({ "applications": [] }), 400, "262212", "applications.authentication_methods"),
        (json!({ "applications": [{ "application": "ssh", "authentication_methods": ["password"] }] }), 400, "262247", "applications.application"),
        (json!({ "applications": [{ "application": "http" }] }), 400, "262212", "applications.authentication_methods"),
        (applications(json!(["domain"])), 400, "262247", "applications.authentication_methods"),
        (json!({ "nonsense": 1 }), 400, "262179", "nonsense"),
    ] {
        assert_eq!(refused(&node, "POST", PATH, with(changes.clone())).await, expect(status, code, target), "{changes}");
    }
    assert_eq!(refused(&node, "POST", &format!("{PATH}?password=secretly"), good.clone()).await, expect(400, "262202", "password"));
    assert_eq!(code(&node.ask("GET", &format!("{PATH}?fields=password"), None).await), "262249");
    assert_eq!(code(&node.ask("GET", &format!("{PATH}?password=x"), None).await), "262250");
    let admin = path_of(&node, "admin").await;
    assert_eq!(refused(&node, "PATCH", &format!("{admin}?password=secretly"), json!({ "comment": "x" })).await, expect(400, "262202", "password"));
    assert_eq!(refused(&node, "PATCH", &admin, json!({})).await.1, "65537541");
    for (field, value) in [("name", json!("x")), ("owner", json!({ "name": "svm1" })), ("scope", json!("svm"))] {
        assert_eq!(refused(&node, "PATCH", &admin, json!({ field: value })).await.1, "262203", "{field}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_administrator_stays() {
    let node = node().await;
    let admin = path_of(&node, "admin").await;
    let certificate = json!([{ "application": "http", "authentication_methods": ["certificate"] }]);
    let changes = [json!({ "locked": true }), json!({ "role": { "name": "readonly" } }), json!({ "applications": certificate })];
    // Others that administer nothing, or that cannot log in by themselves.
    for body in [
        json!({ "name": "reader", "password": PASSWORD, "role": { "name": "readonly" } }),
        json!({ "name": "locked", "password": PASSWORD, "locked": true }),
        json!({ "name": "machine", "applications": certificate }),
        json!({ "name": "tenant", "password": PASSWORD, "owner": { "name": "svm1" } }),
    ] {
        assert_eq!(node.ask("POST", PATH, Some(body)).await.0, 201);
    }
    for change in &changes {
        assert_eq!(refused(&node, "PATCH", &admin, change.clone()).await, expect(409, "5636098", "name"), "{change}");
    }
    assert_eq!(refused(&node, "DELETE", &admin, json!({})).await, expect(409, "5636098", "name"));
    assert_eq!(node.ask("PATCH", &admin, Some(json!({ "comment": "the only one" }))).await.0, 200);
    // Of two that want to be rid of each other, one stays, every time.
    for n in 0..10 {
        let name = format!("second-{n}");
        let second = node.account(&name, "admin", None).await;
        let path = path_of(&node, &name).await;
        let first = node.caller("admin", PASSWORD);
        let (one, other) = tokio::join!(
            first.call("PATCH", &path, Some(json!({ "locked": true }))),
            second.call("PATCH", &admin, Some(json!({ "role": { "name": "readonly" } })))
        );
        let statuses = (one.status, other.status);
        assert!(statuses == (200, 409) || statuses == (409, 200) || statuses == (200, 401) || statuses == (403, 200) || statuses == (401, 200), "{statuses:?}");
        let survivor = if one.status == 200 { &first } else { &second };
        assert_eq!(survivor.call("PATCH", &admin, Some(json!({ "role": { "name": "admin" } }))).await.status, 200);
        assert_eq!(node.ask("PATCH", &path, Some(json!({ "locked": true }))).await.0, 200);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_ones_own() {
    let node = node().await;
    let (reader, tenant) = (node.account("reader", "readonly", None).await, node.account("tenant", "vsadmin", Some("svm1")).await);
    let change = |name: &str, password: &str| Some(json!({ "name": name, "password": password }));
    let path = "/security/authentication/password";
    for (caller, name) in [(&reader, "reader"), (&tenant, "tenant")] {
        for other in ["admin", "nobody-at-all"] {
            let answer = caller.call("POST", path, change(other, "another password")).await;
            assert_eq!((answer.status, answer.code()), (403, "6"));
        }
        assert_eq!(caller.call("POST", path, change(name, "short")).await.code(), "262245");
        assert_eq!(caller.call("POST", path, change(name, "another password")).await.status, 200);
        assert_eq!(caller.login().await, 401, "the old one is no longer remembered");
        assert_eq!(node.caller(name, "another password").login().await, 200);
    }
    assert_eq!(node.ask("POST", path, change("tenant", PASSWORD)).await.0, 200);
    assert_eq!(tenant.login().await, 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_are_shown() {
    let node = node().await;
    let roles = node.get("/security/roles?fields=*").await;
    let names: Vec<_> = roles["records"].as_array().unwrap().iter().map(|role| (role["name"].as_str().unwrap(), role["scope"].as_str().unwrap())).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for role in [("admin", "cluster"), ("readonly", "cluster"), ("vsadmin", "svm")] {
        assert!(names.contains(&role), "{names:?}");
    }
    // An account's link leads to its role.
    let account = node.get(&path_of(&node, "admin").await).await;
    let role = node.get(account["role"]["_links"]["self"]["href"].as_str().unwrap().strip_prefix("/api").unwrap()).await;
    assert_eq!((&role["name"], &role["builtin"], &role["privileges"][0]["access"]), (&json!("admin"), &json!(true), &json!("all")));
    node.stop().await;
}
