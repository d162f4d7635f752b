use std::path::Path;

use super::{FactsError, read_facts};

const LIVE: &str = include_str!("../testdata/live.xml");
const ID: &str = "018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5d";

#[test]
fn the_facts_of_a_live_domain() {
    let facts = read_facts(LIVE).unwrap();
    assert_eq!(facts.id.to_string(), ID);
    assert_eq!(facts.name, "web-1");
    let channel = facts.channel.expect("the channel is there");
    assert_eq!(channel.path, Path::new("/run/infinibay/agents/a&b.sock"));
    assert_eq!(channel.guest_connected, Some(false));
    let cards: Vec<_> = facts.interfaces.iter().map(|i| (i.mac.as_str(), i.network.as_deref())).collect();
    assert_eq!(cards, [("52:54:00:ab:cd:ef", Some("default")), ("52:54:00:00:00:01", None)]);
    assert!(facts.managed);
}

#[test]
fn a_clone_that_carries_our_metadata_is_not_ours() {
    let clone = LIVE.replace(
        "<uuid>018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5d</uuid>",
        "<uuid>018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5e</uuid>",
    );
    assert!(!read_facts(&clone).unwrap().managed);
    let other_namespace = LIVE.replace("urn:infinibay:domain", "urn:infinibay:else");
    assert!(!read_facts(&other_namespace).unwrap().managed);
}

#[test]
fn only_a_unix_socket_that_the_hypervisor_binds_counts() {
    let edits = [
        ("mode='bind' path='/run/inf", "mode='connect' path='/run/inf"),
        ("mode='bind' path='/run/inf", "path='/run/inf"),
        ("path='/run/infinibay", "path='run/infinibay"),
        ("name='org.infinibay.agent' state='disconnected'", "name='org.infinibay.agent2'"),
        ("type='virtio' name='org.infinibay.agent' state", "type='xen' name='org.infinibay.agent' state"),
    ];
    for (from, to) in edits {
        let edited = LIVE.replace(from, to);
        assert_ne!(edited, LIVE, "{from} is not in the document");
        assert_eq!(read_facts(&edited).unwrap().channel, None, "{to}");
    }
}

#[test]
fn the_guests_end_is_known_only_where_libvirt_says_so() {
    for (state, expected) in [(" state='connected'", Some(true)), ("", None), (" state='odd'", None)] {
        let edited = LIVE.replace(" state='disconnected'", state);
        assert_eq!(read_facts(&edited).unwrap().channel.unwrap().guest_connected, expected, "{state}");
    }
}

#[test]
fn what_is_no_whole_domain_is_refused() {
    // A truncated document is never a smaller domain: every proper prefix must fail.
    let whole = LIVE.trim_end();
    for end in (0..whole.len()).filter(|&end| whole.is_char_boundary(end)) {
        assert!(read_facts(&whole[..end]).is_err(), "the first {end} bytes were accepted");
    }
    let table = [
        ("<domainsnapshot><name>a</name></domainsnapshot>", "not <domain>"),
        ("<domain xmlns='urn:x'><name>a</name></domain>", "not <domain>"),
        ("<domain><name>a</name></domain>", "no <uuid>"),
        ("<domain><name>a</name><uuid>12</uuid></domain>", "<uuid> holds"),
        ("<domain><uuid>018f3c5e7a107cc29d1b6f0f3a2b4c5d</uuid></domain>", "no <name>"),
        ("<domain/><domain/>", "second root"),
        ("<domain/>x", "outside"),
        ("<domain>&nbsp;</domain>", "reference"),
        ("<!DOCTYPE domain [<!ENTITY a 'b'>]><domain/>", "internal subset"),
    ];
    for (xml, expected) in table {
        let FactsError(reason) = read_facts(xml).expect_err(xml);
        assert!(reason.contains(expected), "{xml}: {reason}");
    }
}

#[test]
fn uuid_and_name_are_read_as_libvirt_reads_them() {
    let xml = "<domain><name>a&lt;b<!-- c --><![CDATA[&d]]></name>\
               <uuid>\n 018F3C5E7A107CC2-9D1B6F0F3A2B4C5D </uuid></domain>";
    let facts = read_facts(xml).unwrap();
    assert_eq!((facts.id.to_string().as_str(), facts.name.as_str()), (ID, "a<b&d"));
}
