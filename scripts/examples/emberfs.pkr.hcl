# An image with EmberFS, for Packer: the package is installed and the volume's service enabled, so that a machine that
# boots from it has /mnt/work. Which repository that is comes with the machine: as long as there is no
# /etc/emberfs/mnt-work.yaml, the service does not start, and cloud-init.yaml beside this file writes one.
#
#   scripts/package && packer init scripts/examples/emberfs.pkr.hcl
#   packer build -var deb=dist/emberfs_0.1.0_amd64.deb scripts/examples/emberfs.pkr.hcl
packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3.0"
    }
  }
}

variable "deb" {
  type        = string
  description = "the package that scripts/package made"
}

variable "region" {
  type    = string
  default = "eu-central-1"
}

source "amazon-ebs" "debian" {
  region        = var.region
  instance_type = "t3.small"
  ssh_username  = "admin"
  ami_name      = "emberfs-{{timestamp}}"
  source_ami_filter {
    owners      = ["136693071363"] # Debian
    most_recent = true
    filters = {
      name                = "debian-12-amd64-*"
      virtualization-type = "hvm"
    }
  }
}

build {
  sources = ["source.amazon-ebs.debian"]

  provisioner "file" {
    source      = var.deb
    destination = "/tmp/emberfs.deb"
  }

  provisioner "shell" {
    inline = [
      "sudo apt-get update",
      "sudo apt-get install -y /tmp/emberfs.deb",
      "rm /tmp/emberfs.deb",
      "sudo mkdir -p /mnt/work",
      "sudo systemctl enable emberfs@mnt-work.service",
    ]
  }
}
