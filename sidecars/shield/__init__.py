"""The shield: profiles, rulesets and dnsmasq configuration, as pure decisions."""
