// Command tpm-device-plugin offers the TPM of a node to the trust agent's pod as the resource touchstone.dev/tpm. See package deviceplugin.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/deviceplugin"
	"touchstone.dev/touchstone/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tpm-device-plugin:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	p := deviceplugin.Plugin{Poll: time.Second, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	cmd := &cobra.Command{
		Use: "tpm-device-plugin", Short: "Offers the node's TPM to the trust agent as the resource " + deviceplugin.Resource,
		Version: version.String(), Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.Sysfs == "" {
				p.Sysfs = "/sys/class/tpmrm/" + filepath.Base(p.Device)
			}
			return p.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.Device, "device", "/dev/tpmrm0", "`PATH` of the device")
	f.StringVar(&p.Sysfs, "sysfs", "", "`PATH` that exists as long as the kernel has the device (default: below /sys/class/tpmrm)")
	f.StringVar(&p.Folder, "folder", "/var/lib/kubelet/device-plugins", "`FOLDER` where the kubelet listens for device plugins")
	return cmd
}
