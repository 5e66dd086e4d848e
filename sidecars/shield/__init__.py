"""The egress firewall as data: profiles, targets, the policy and its renderings. Nothing here touches the kernel."""
