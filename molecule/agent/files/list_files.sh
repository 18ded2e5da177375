#!/bin/sh
# Every file of the node with type, mode, owner and group, and the checksums of what /etc holds. Left out is what changes by itself.
export LC_ALL=C
{
    find / /run /run/lock /tmp -xdev \
        \( -path /proc -o -path /sys -o -path /dev \
        -o -path /root/.ansible -o -path /root/before \
        -o -path '/var/log/journal/*' -o -path '/run/log/journal/*' \
        -o -path '/run/systemd/*' -o -path '/run/user' -o -path '/run/sudo' -o -path '/run/utmp' \
        -o -path '/tmp/systemd-private-*' -o -path '/var/tmp/systemd-private-*' -o -path '/tmp/ansible*' \
        -o -path /var/log/wtmp -o -path /var/log/btmp -o -path /var/log/lastlog -o -path /var/log/wtmp.db -o -path /var/lib/wtmpdb/wtmp.db-journal \
        -o -path '/etc/passwd-' -o -path '/etc/group-' -o -path '/etc/shadow-' -o -path '/etc/gshadow-' -o -path '/etc/subuid-' -o -path '/etc/subgid-' \
        -o -path '/etc/.pwd.lock' -o -path '/srv/ml/*' -o -path '/var/backups/*' -o -path '/var/cache/apt/*.bin' -o -path /var/lib/apt/lists/auxfiles -o -path /var/lib/logrotate/status \) -prune \
        -o -printf '%p %y %m %u %g\n' | sort -u
    find /etc -xdev -type f ! -name '*-' ! -name .pwd.lock -exec md5sum {} + | sort -k 2
}
