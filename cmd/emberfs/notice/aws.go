package notice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

const (
	awsAction    = "spot/instance-action"
	awsRebalance = "events/recommendations/rebalance"
)

// watchAWS asks for the interruption of a spot instance and for the recommendation to rebalance, by IMDSv2: a token
// first, which is kept for five minutes. A server without tokens is not asked by IMDSv1, which requests that somebody
// else forges can reach. The variable AWS_EC2_METADATA_SERVICE_ENDPOINT names another server, and
// AWS_EC2_METADATA_DISABLED=true none, as for everything that is made with AWS's modules.
func watchAWS(ctx context.Context, t teller) {
	if strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		t.log.Warn("AWS_EC2_METADATA_DISABLED is set: AWS is not asked for a notice")
		return
	}
	plain, idle := newHTTP()
	defer idle()
	client := imds.New(imds.Options{
		HTTPClient: plain, EnableFallback: aws.FalseTernary, DisableDefaultMaxBackoff: true,
		// A second try is for a token that the server does not know any more. The loop below tries the rest again.
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.RateLimiter = 2, ratelimit.None
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) {
				return 100 * time.Millisecond, nil
			})
		}),
	})
	each(ctx, t.rhythm.aws, func() {
		for path, parse := range map[string]func([]byte) (*Notice, error){
			awsAction: parseAWSAction, awsRebalance: parseAWSRebalance,
		} {
			text, err := askAWS(ctx, client, path, t.rhythm.awsPatience)
			if ctx.Err() != nil {
				return
			}
			var n *Notice
			if err == nil && text != nil {
				n, err = parse(text)
			}
			if t.asked(path, err); err == nil {
				t.say(path, n)
			}
		}
	})
}

// askAWS returns nil where the server knows nothing of the path, which it answers as long as there is no notice.
func askAWS(ctx context.Context, client *imds.Client, path string, patience time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := client.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	var answer interface{ HTTPStatusCode() int }
	if errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer out.Content.Close()
	return io.ReadAll(out.Content)
}

// parseAWSAction reads {"action": "terminate", "time": "2017-09-18T08:22:00Z"}. A machine that hibernates begins at
// once, and the time may be missing.
func parseAWSAction(text []byte) (*Notice, error) {
	var in struct {
		Action string    `json:"action"`
		Time   time.Time `json:"time"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, fmt.Errorf("%s: %w", awsAction, err)
	}
	switch in.Action {
	case "terminate", "stop", "hibernate":
		return &Notice{What: in.Action, Until: in.Time, Guessed: in.Time.IsZero(),
			Detail: "the spot instance is interrupted"}, nil
	}
	return nil, fmt.Errorf("%s: unknown action %.40q", awsAction, in.Action)
}

// parseAWSRebalance reads {"noticeTime": "2020-10-27T08:22:00Z"}: the instance is at elevated risk, and may stay.
func parseAWSRebalance(text []byte) (*Notice, error) {
	var in struct {
		Time time.Time `json:"noticeTime"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, fmt.Errorf("%s: %w", awsRebalance, err)
	}
	if in.Time.IsZero() {
		return nil, fmt.Errorf("%s: no noticeTime", awsRebalance)
	}
	return &Notice{What: "rebalance", Detail: "the spot instance is at elevated risk of interruption"}, nil
}
