package notice

import (
	"os"
	"path/filepath"
	"strings"
)

// dmiDir has what the firmware says of the machine. It is readable in containers too, where it tells of their host.
const dmiDir = "/sys/class/dmi/id"

// azureTag is the asset tag of the chassis of every machine in Azure, and of none elsewhere. Hyper-V at home has the
// same vendor and product names.
const azureTag = "7783-7084-3265-9085-8269-3286-77"

// detect returns the cloud that the firmware's words in dir name: AWS, GCP, Azure, or None. It asks nobody.
func detect(dir string) string {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return ""
		}
		return strings.ToLower(strings.TrimSpace(string(text)))
	}
	switch product := read("product_name"); {
	case read("sys_vendor") == "amazon ec2", // Nitro
		strings.HasSuffix(read("bios_version"), ".amazon"): // Xen
		return AWS
	case product == "google compute engine" || product == "google":
		return GCP
	case read("chassis_asset_tag") == azureTag:
		return Azure
	}
	return None
}
