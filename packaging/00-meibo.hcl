# What the package sets. Leave this file as it is, so that an upgrade has nothing to ask, and put settings of your own into
# further files of this folder: /etc/meibo.d/host.hcl, say. They are read in the order of their names, the later wins; each
# key is in meibo.d(5), and `meibo validate /etc/meibo.d` tells what is wrong with them. The daemon's user reads them: a file
# with a secret is root:meibo, mode 0640.
data_dir = "/var/lib/meibo"

# Where DNS is answered is what systemd makes sockets for, 127.0.0.1:53: see "THE PACKAGE" in meibo(8).
